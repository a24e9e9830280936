//! From samples to medians, and from medians to the figures that Holdfast is to reach.

use super::scenario::{Course, Sample, Step};

/// The middle of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of `values`; none if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len() % 2 == 1 { upper } else { (values.get(middle - 1)? + upper) / 2.0 };
        Some(Self { median, least, most })
    }
}

impl Course {
    /// One quantity of one step over all rounds. Samples that others disturbed do not count
    /// unless there is no other.
    pub fn spread(&self, step: Step, of: impl Fn(&Sample) -> f64) -> Option<Spread> {
        let all = || self.samples.iter().filter(|s| s.step == step);
        let calm: Vec<f64> = all().filter(|s| !s.run.is_noisy()).map(&of).collect();
        Spread::of(if calm.is_empty() { all().map(of).collect() } else { calm })
    }

    /// Whether every sample of a step was disturbed.
    pub fn only_noisy(&self, step: Step) -> bool {
        let mut all = self.samples.iter().filter(|s| s.step == step).peekable();
        all.peek().is_some() && all.all(|s| s.run.is_noisy())
    }

    /// The median seconds of a step.
    pub fn seconds(&self, step: Step) -> Option<f64> {
        self.spread(step, |s| s.run.seconds).map(|s| s.median)
    }

    /// The median bytes that a step added, parity not counted.
    pub fn added(&self, step: Step) -> Option<f64> {
        self.spread(step, |s| s.added_bytes as f64).map(|s| s.median)
    }

    /// The largest peak memory of any step in any round, in bytes.
    pub fn memory_peak_bytes(&self) -> u64 {
        self.samples.iter().map(|s| s.run.memory_peak_bytes).max().unwrap_or(0)
    }

    /// How many samples others disturbed.
    pub fn noisy(&self) -> usize {
        self.samples.iter().filter(|s| s.run.is_noisy()).count()
    }
}

/// One figure to reach.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What is compared.
    pub what: String,
    /// What it should be.
    pub asked: String,
    /// What it is, in the same words.
    pub measured: String,
    /// Whether that is enough.
    pub reached: bool,
}

/// Resident memory that no step may pass.
const MEMORY_LIMIT_BYTES: u64 = 512 << 20;

/// The figures that these samples can answer; empty without a Holdfast among them.
pub fn figures(courses: &[Course]) -> Vec<Figure> {
    let course = |name: &str| courses.iter().find(|c| c.tool == name);
    let Some(own) = course("holdfast") else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(rustic) = course("rustic") {
        let mut faster = |step: Step, factor: f64| {
            if let (Some(theirs), Some(ours)) = (rustic.seconds(step), own.seconds(step)) {
                found.push(Figure {
                    what: format!("{}, speed against rustic", step.name()),
                    asked: format!("at least {factor:.1}x"),
                    measured: format!("{:.2}x", theirs / ours),
                    reached: theirs / ours >= factor,
                });
            }
        };
        faster(Step::Full, 3.0);
        faster(Step::Incremental, 3.0);
        faster(Step::Unchanged, 1.0);
        faster(Step::Touched, 1.0);
        faster(Step::Restore, 2.0);
        if let (Some(theirs), Some(ours)) =
            (rustic.seconds(Step::Full), course("holdfast, sampled").and_then(|c| c.seconds(Step::Full)))
        {
            found.push(Figure {
                what: "full backup with --verify-write=sample, speed against rustic".to_owned(),
                asked: "at least 4.0x".to_owned(),
                measured: format!("{:.2}x", theirs / ours),
                reached: theirs / ours >= 4.0,
            });
        }
        let mut smaller = |step: Step, share: f64| {
            if let (Some(theirs), Some(ours)) = (rustic.added(step), own.added(step)) {
                found.push(Figure {
                    what: format!("{}, bytes added against rustic", step.name()),
                    asked: format!("at most {share:.2}"),
                    measured: format!("{:.2}", ours / theirs),
                    reached: ours <= share * theirs,
                });
            }
        };
        smaller(Step::Full, 1.0);
        smaller(Step::Incremental, 0.2);
    }
    if let Some(copy) = course("cp -a")
        && let (Some(theirs), Some(ours)) = (copy.seconds(Step::Restore), own.seconds(Step::Restore))
    {
        found.push(Figure {
            what: "restore, speed against cp -a".to_owned(),
            asked: "at least 1.0x".to_owned(),
            measured: format!("{:.2}x", theirs / ours),
            reached: ours <= theirs,
        });
    }
    if let (Some(check), Some(restore)) = (own.seconds(Step::Check), own.seconds(Step::Restore)) {
        found.push(Figure {
            what: "full check of four backups, speed against the restore of one".to_owned(),
            asked: "at least 1.0x".to_owned(),
            measured: format!("{:.2}x", restore / check),
            reached: check <= restore,
        });
    }
    if let Some(open) = own.seconds(Step::Open) {
        found.push(Figure {
            what: "open and list (four backups)".to_owned(),
            asked: "below 1 s".to_owned(),
            measured: format!("{open:.2} s"),
            reached: open < 1.0,
        });
    }
    let peak = own.memory_peak_bytes();
    found.push(Figure {
        what: "peak resident memory of any step".to_owned(),
        asked: format!("at most {} MiB", MEMORY_LIMIT_BYTES >> 20),
        measured: format!("{} MiB", peak >> 20),
        reached: peak <= MEMORY_LIMIT_BYTES,
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::measure::Run;

    fn course(tool: &'static str, full_seconds: &[f64], added_bytes: u64) -> Course {
        let sample = |&seconds: &f64| Sample {
            step: Step::Full,
            run: Run { seconds, memory_peak_bytes: 100 << 20, ..Run::default() },
            added_bytes,
            parity_bytes: 0,
        };
        Course {
            tool,
            setting: "",
            version: String::new(),
            samples: full_seconds.iter().map(sample).collect(),
            extra_files: Vec::new(),
        }
    }

    #[test]
    fn the_median_of_even_and_odd_counts() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_figure_is_reached_only_when_the_ratio_says_so() {
        let rustic = course("rustic", &[6.0, 6.0, 60.0], 400);
        let figures = |own| figures(&[own, rustic.clone()]);
        let fast = figures(course("holdfast", &[2.0, 1.9, 2.1], 400));
        assert!(fast.iter().all(|f| f.reached), "{fast:?}");
        let slow = figures(course("holdfast", &[2.1, 2.1, 2.1], 401));
        assert_eq!(slow.iter().filter(|f| !f.reached).count(), 2, "{slow:?}");
    }

    #[test]
    fn a_disturbed_sample_counts_only_when_there_is_no_other() {
        let mut course = course("rustic", &[6.0, 60.0], 400);
        course.samples[1].run.foreign_cpu_seconds = 40.0;
        assert_eq!(course.seconds(Step::Full), Some(6.0));
        course.samples.remove(0);
        assert!(course.only_noisy(Step::Full));
        assert_eq!(course.seconds(Step::Full), Some(60.0));
    }

    #[test]
    fn without_holdfast_there_is_nothing_to_reach() {
        assert!(figures(&[course("rustic", &[1.0], 1)]).is_empty());
    }
}
