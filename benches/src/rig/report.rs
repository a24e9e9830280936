//! The page that a run leaves behind: benches/RESULTS.md.

use std::fmt::Write as _;

use super::figures::figures;
use super::machine::Machine;
use super::scenario::{Course, Sample, Step};

/// What stands below this line of an earlier page was written by people, and stays.
const NOTES: &str = "<!-- notes: kept by tools/bench -->";

/// What the page says beside the samples.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The machine.
    pub machine: Machine,
    /// When, as a date.
    pub date: String,
    /// The data set in words.
    pub data: String,
    /// Bytes of gen0 and of gen1.
    pub data_bytes: (u64, u64),
    /// How often everything was done.
    pub rounds: u32,
    /// Whether the page cache was emptied before each step.
    pub cold: bool,
    /// Whether this is the small data set that only checks the rig.
    pub small: bool,
}

/// The page; the notes of `earlier` are kept.
pub fn page(setting: &Setting, courses: &[Course], earlier: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(&mut out, setting, courses);
    out.push_str(NOTES);
    out.push_str(earlier.split_once(NOTES).map_or("\n", |(_, notes)| notes));
    out
}

fn write_page(out: &mut String, setting: &Setting, courses: &[Course]) -> std::fmt::Result {
    writeln!(out, "# Holdfast beside other tools\n")?;
    writeln!(
        out,
        "Written by `tools/bench`{} on {}. Absolute figures move from machine to machine; compare the ratios.\n",
        if setting.small { " `--small`, which checks the rig and is too short for figures," } else { "" },
        setting.date
    )?;
    method(out, setting, courses)?;
    seconds(out, courses)?;
    bytes(out, courses)?;
    checks(out, courses)?;
    memory(out, courses)?;
    ratios(out, courses)?;
    reached(out, courses)?;
    writeln!(out)
}

fn method(out: &mut String, setting: &Setting, courses: &[Course]) -> std::fmt::Result {
    let machine = &setting.machine;
    writeln!(
        out,
        "- Machine: {} cores ({}), {:.0} GiB of memory, Linux {}, {}; load when the run began: {}.",
        machine.cores,
        machine.processor,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.file_system,
        machine.load
    )?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let (gen0, gen1) = setting.data_bytes;
    writeln!(
        out,
        "- Data: {}. The stopped server's folder before (gen0, {:.0} MB) and after (gen1, {:.0} MB), without redo log \
         and temporary tablespaces.",
        setting.data.trim(),
        mb(gen0),
        mb(gen1)
    )?;
    writeln!(
        out,
        "- Method: medians of {} rounds; the tools take turns. {} The time ends after a sync of the file \
         system. Each restore was compared with its source byte for byte.",
        setting.rounds,
        if setting.cold {
            "The page cache was emptied before each step, the program itself read back in."
        } else {
            "**The page cache could not be emptied here: warm figures.**"
        }
    )?;
    let noisy: usize = courses.iter().map(Course::noisy).sum();
    let samples: usize = courses.iter().map(|c| c.samples.len()).sum();
    writeln!(
        out,
        "- Noise: in {noisy} of {samples} samples something else used more than a third of a core (the kernel's own \
         writing counts). Those do not count, except where (!) marks that there was no other."
    )?;
    let names = courses.iter().map(|c| format!("{} {} ({})", c.tool, c.version, c.setting));
    writeln!(out, "- Tools: {}.", names.collect::<Vec<_>>().join("; "))?;
    for course in courses.iter().filter(|c| !c.extra_files.is_empty()) {
        let names = course.extra_files.iter().map(|f| format!("`{}`", f.display()));
        writeln!(out, "- {}'s restore adds {}.", course.tool, names.collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

fn table(
    out: &mut String,
    title: &str,
    courses: &[Course],
    steps: &[Step],
    cell: impl Fn(&Course, Step) -> Option<String>,
) -> std::fmt::Result {
    writeln!(out, "\n## {title}\n")?;
    let heads = steps.iter().map(|step| step.name());
    writeln!(out, "| tool | {} |", heads.collect::<Vec<_>>().join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(steps.len()))?;
    for course in courses {
        let cells = steps.iter().map(|step| cell(course, *step).unwrap_or_default());
        writeln!(out, "| {} | {} |", course.tool, cells.collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}

fn seconds(out: &mut String, courses: &[Course]) -> std::fmt::Result {
    table(out, "Seconds (median, least - most)", courses, &Step::ALL, |course, step| {
        let s = course.spread(step, |s| s.run.seconds)?;
        let mark = if course.only_noisy(step) { " (!)" } else { "" };
        Some(format!("**{:.2}** ({:.2} - {:.2}){mark}", s.median, s.least, s.most))
    })
}

const WRITING: [Step; 4] = [Step::Full, Step::Incremental, Step::Unchanged, Step::Touched];

fn bytes(out: &mut String, courses: &[Course]) -> std::fmt::Result {
    table(out, "Bytes added to the repository (MB; parity apart)", courses, &WRITING, |course, step| {
        let of = |bytes: fn(&Sample) -> u64| course.spread(step, |s| bytes(s) as f64 / 1e6).map(|s| s.median);
        let (added, parity) = (of(|s| s.added_bytes)?, of(|s| s.parity_bytes)?);
        let parity = if parity > 0.0 { format!(" + {parity:.1} parity") } else { String::new() };
        Some(format!("{added:.1}{parity}"))
    })
}

/// A check reads what is stored, which differs from tool to tool; seconds alone do not say how fast it reads.
fn checks(out: &mut String, courses: &[Course]) -> std::fmt::Result {
    let stored = |course: &Course| {
        let of =
            |step: &Step| course.spread(*step, |s| (s.added_bytes + s.parity_bytes) as f64).map(|s| s.median);
        WRITING.iter().filter_map(of).sum::<f64>() / 1e6
    };
    let checked: Vec<_> = courses.iter().filter_map(|c| Some((c, c.seconds(Step::Check)?))).collect();
    if checked.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n## Full check, by the bytes that are stored\n")?;
    writeln!(out, "| tool | stored, parity included, MB | s | MB/s |\n|---|---|---|---|")?;
    for (course, seconds) in checked {
        let stored = stored(course);
        writeln!(out, "| {} | {stored:.1} | {seconds:.2} | {:.0} |", course.tool, stored / seconds)?;
    }
    Ok(())
}

fn memory(out: &mut String, courses: &[Course]) -> std::fmt::Result {
    table(out, "Peak resident memory (MiB) and processor time (s)", courses, &Step::ALL, |course, step| {
        let peak = course.spread(step, |s| s.run.memory_peak_bytes as f64)?.most;
        let cpu = course.spread(step, |s| s.run.cpu_seconds)?.median;
        Some(format!("{:.0}; {cpu:.2}", peak / f64::from(1 << 20)))
    })
}

fn ratios(out: &mut String, courses: &[Course]) -> std::fmt::Result {
    let Some(own) = courses.iter().find(|c| c.tool == "holdfast") else { return Ok(()) };
    let others: Vec<_> = courses.iter().filter(|c| !c.tool.starts_with(own.tool)).cloned().collect();
    table(out, "How many times faster Holdfast is", &others, &Step::ALL, |course, step| {
        Some(format!("{:.2}x", course.seconds(step)? / own.seconds(step)?))
    })?;
    table(out, "Bytes that Holdfast adds, per byte of the other tool", &others, &WRITING, |course, step| {
        let (ours, theirs) = (own.added(step)?, course.added(step)?);
        // Below a megabyte it is only bookkeeping, and a ratio would say nothing.
        (theirs > 1e6).then(|| format!("{:.2}", ours / theirs))
    })
}

fn reached(out: &mut String, courses: &[Course]) -> std::fmt::Result {
    let figures = figures(courses);
    if figures.is_empty() {
        return writeln!(out, "\nHoldfast was not among the tools of this run.");
    }
    writeln!(out, "\n## The figures to reach\n")?;
    writeln!(out, "| figure | asked | measured | reached |\n|---|---|---|---|")?;
    for figure in figures {
        let mark = if figure.reached { "yes" } else { "**no**" };
        writeln!(out, "| {} | {} | {} | {mark} |", figure.what, figure.asked, figure.measured)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::measure::Run;

    fn setting() -> Setting {
        Setting {
            machine: Machine::look(std::path::Path::new("/")),
            date: "2000-01-01".to_owned(),
            data: "data".to_owned(),
            data_bytes: (1, 2),
            rounds: 1,
            cold: true,
            small: false,
        }
    }

    fn course(tool: &'static str, seconds: f64) -> Course {
        let run = Run { seconds, ..Run::default() };
        let sample = Sample { step: Step::Full, run, added_bytes: 2_000_000, parity_bytes: 0 };
        Course { tool, setting: "s", version: "1".into(), samples: vec![sample], extra_files: Vec::new() }
    }

    #[test]
    fn the_page_shows_ratios_and_keeps_the_notes() {
        let first = page(&setting(), &[course("holdfast", 2.0), course("rustic", 5.0)], "");
        assert!(first.contains("| rustic | 2.50x |"), "{first}");
        assert!(first.contains("at least 3.0x | 2.50x | **no**"), "{first}");
        let annotated = format!("{first}\nWhy: because.\n");
        let second = page(&setting(), &[course("holdfast", 1.0), course("rustic", 5.0)], &annotated);
        assert!(second.contains("5.00x") && second.ends_with("\nWhy: because.\n"), "{second}");
    }

    #[test]
    fn a_check_is_shown_by_what_it_reads() {
        let mut own = course("holdfast", 2.0);
        own.samples[0].parity_bytes = 1_000_000;
        let run = Run { seconds: 0.5, ..Run::default() };
        own.samples.push(Sample { step: Step::Check, run, added_bytes: 0, parity_bytes: 0 });
        let page = page(&setting(), &[own, course("rustic", 5.0)], "");
        assert!(page.contains("| holdfast | 3.0 | 0.50 | 6 |"), "{page}");
    }

    #[test]
    fn a_page_without_holdfast_says_so() {
        assert!(page(&setting(), &[course("rustic", 1.0)], "").contains("not among the tools"));
    }
}
