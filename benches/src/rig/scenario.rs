//! What each tool has to do, in order, and what is measured of it.
//!
//! The tools take turns within a round and the rounds follow each other, so that a slow
//! minute of the machine falls on all of them. Before each timed step the page cache is
//! emptied and the program itself is read back in; each timed step ends with a sync.

use std::fs;
use std::path::{Path, PathBuf};

use super::dataset::DataSet;
use super::error::{Result, at};
use super::folder::{Shown, bytes_below, must_equal, remove, touch_all};
use super::measure::{Run, drop_caches, run, to_its_end};
use super::tools::{Place, Tool};

/// How often a turn is done at most when something else keeps the machine busy.
const TURNS_MAX: u32 = 3;

/// The timed steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The first backup, of gen0.
    Full,
    /// The next one, of gen1.
    Incremental,
    /// gen1 again, untouched.
    Unchanged,
    /// gen1 again, each file with a new modification time and no byte changed.
    Touched,
    /// The newest backup into an empty folder.
    Restore,
    /// Listing the four backups.
    Open,
    /// Reading back and checking every byte that the repository stores.
    Check,
}

impl Step {
    /// All, in the order in which they are done.
    pub const ALL: [Self; 7] = [
        Self::Full,
        Self::Incremental,
        Self::Unchanged,
        Self::Touched,
        Self::Restore,
        Self::Open,
        Self::Check,
    ];

    /// As the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full backup",
            Self::Incremental => "incremental",
            Self::Unchanged => "nothing changed",
            Self::Touched => "only times touched",
            Self::Restore => "restore",
            Self::Open => "open and list",
            Self::Check => "full check",
        }
    }
}

/// One step as it went in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Which.
    pub step: Step,
    /// What it took.
    pub run: Run,
    /// Bytes that it added to the repository, parity not counted; 0 for steps that only read.
    pub added_bytes: u64,
    /// Bytes of parity that it added.
    pub parity_bytes: u64,
}

/// Everything measured of one tool.
#[derive(Clone, Debug)]
pub struct Course {
    /// The tool's name.
    pub tool: &'static str,
    /// How it was set.
    pub setting: &'static str,
    /// The version that it reports.
    pub version: String,
    /// The samples of all rounds.
    pub samples: Vec<Sample>,
    /// Files that the restore made beside those of the source.
    pub extra_files: Vec<PathBuf>,
}

/// How a comparison is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The data.
    pub data: DataSet,
    /// An empty folder's path on the same file system; it is made and removed again.
    pub work: PathBuf,
    /// How many times everything is done.
    pub rounds: u32,
    /// Whether the page cache can be emptied.
    pub cold: bool,
}

/// Runs all tools through all rounds; `tell` gets a line after each step.
///
/// # Errors
/// A tool fails, or restores something else than its source.
pub fn compare(plan: &Plan, tools: &[Box<dyn Tool>], mut tell: impl FnMut(&str)) -> Result<Vec<Course>> {
    let mut courses = Vec::new();
    for tool in tools {
        let turn = Turn::begin(plan, tool.as_ref())?;
        let version = turn.version()?;
        courses.push(Course {
            tool: tool.name(),
            setting: tool.setting(),
            version,
            samples: Vec::new(),
            extra_files: Vec::new(),
        });
    }
    for round in 1..=plan.rounds {
        for (tool, course) in tools.iter().zip(&mut courses) {
            let turn = calm_turn(plan, tool.as_ref(), &mut |sample| {
                tell(&format!(
                    "round {round}  {:<17}  {:<18}  {:>7.2} s  cpu {:>6.2} s  others {:>5.2} s  {:>6.1} MiB  +{:>6.1} MB",
                    course.tool,
                    sample.step.name(),
                    sample.run.seconds,
                    sample.run.cpu_seconds,
                    sample.run.foreign_cpu_seconds,
                    sample.run.memory_peak_bytes as f64 / f64::from(1 << 20),
                    sample.added_bytes as f64 / 1e6,
                ));
            })?;
            course.samples.extend(turn.samples);
            course.extra_files = turn.extra_files;
        }
    }
    remove(&plan.work)?;
    Ok(courses)
}

/// One turn; done again while something else disturbs the machine. The least disturbed one counts.
fn calm_turn<'a>(plan: &'a Plan, tool: &'a dyn Tool, tell: &mut impl FnMut(&Sample)) -> Result<Turn<'a>> {
    let mut best: Option<(usize, Turn<'a>)> = None;
    for _ in 0..TURNS_MAX {
        let mut turn = Turn::begin(plan, tool)?;
        turn.all(tell)?;
        let noisy = turn.samples.iter().filter(|s| s.run.is_noisy()).count();
        let better = best.as_ref().is_none_or(|(least, _)| noisy < *least);
        match best {
            Some(kept) if !better => best = Some(kept),
            _ => best = Some((noisy, turn)),
        }
        if noisy == 0 {
            break;
        }
    }
    match best {
        Some((_, turn)) => Ok(turn),
        None => Turn::begin(plan, tool),
    }
}

/// One tool's turn in one round: an empty place, then every step.
struct Turn<'a> {
    plan: &'a Plan,
    tool: &'a dyn Tool,
    place: Place,
    log: PathBuf,
    stored: (u64, u64),
    samples: Vec<Sample>,
    extra_files: Vec<PathBuf>,
}

impl<'a> Turn<'a> {
    fn begin(plan: &'a Plan, tool: &'a dyn Tool) -> Result<Self> {
        remove(&plan.work)?;
        let place = Place::new(&plan.work, &plan.data.source)?;
        let log = place.home.join("said");
        Ok(Self { plan, tool, place, log, stored: (0, 0), samples: Vec::new(), extra_files: Vec::new() })
    }

    fn version(&self) -> Result<String> {
        to_its_end(&mut self.tool.version(&self.place), &self.log)?;
        let said = at("read", &self.log, fs::read_to_string(&self.log))?;
        Ok(version_in(&said))
    }

    fn all(&mut self, tell: &mut impl FnMut(&Sample)) -> Result<()> {
        {
            // Some tools look for the source as soon as they are told of it.
            let _gen0 = Shown::at(&self.plan.data.gen0, &self.plan.data.place)?;
            for mut command in self.tool.init(&self.place) {
                to_its_end(&mut command, &self.log)?;
            }
            self.stored = self.count()?;
            self.backup(Step::Full, 1, tell)?;
        }
        let gen1 = Shown::at(&self.plan.data.gen1, &self.plan.data.place)?;
        for step in self.tool.steps() {
            match step {
                Step::Full => {}
                Step::Incremental => self.backup(Step::Incremental, 2, tell)?,
                Step::Unchanged => self.backup(Step::Unchanged, 3, tell)?,
                Step::Touched => {
                    touch_all(gen1.place())?;
                    self.backup(Step::Touched, 4, tell)?;
                }
                Step::Restore => self.restore(tell)?,
                Step::Open => self.read(Step::Open, self.tool.open(&self.place), tell)?,
                Step::Check => self.read(Step::Check, self.tool.check(&self.place), tell)?,
            }
        }
        drop(gen1);
        Ok(())
    }

    fn backup(&mut self, step: Step, number: u32, tell: &mut impl FnMut(&Sample)) -> Result<()> {
        let command = self.tool.backup(&self.place, number);
        let parent = self.plan.work.clone();
        self.step(step, command, &parent, tell)
    }

    /// A step that looks at the repository only.
    fn read(
        &mut self,
        step: Step,
        command: Option<std::process::Command>,
        tell: &mut impl FnMut(&Sample),
    ) -> Result<()> {
        let place = self.place.repo.clone();
        command.map_or(Ok(()), |command| self.step(step, command, &place, tell))
    }

    fn restore(&mut self, tell: &mut impl FnMut(&Sample)) -> Result<()> {
        let into = self.place.restored.clone();
        at("make", &into, fs::create_dir_all(&into))?;
        let command = self.tool.restore(&self.place, 4);
        self.step(Step::Restore, command, &into, tell)?;
        let restored = self.tool.restored(&self.place);
        self.extra_files = must_equal(self.tool.name(), &self.place.source, &restored)?;
        remove(&into)
    }

    fn step(
        &mut self,
        step: Step,
        mut command: std::process::Command,
        target: &Path,
        tell: &mut impl FnMut(&Sample),
    ) -> Result<()> {
        rustix::fs::sync();
        if self.plan.cold {
            let switch = Path::new("/proc/sys/vm/drop_caches");
            at("empty the page cache with", switch, drop_caches())?;
        }
        // Twice: the first call reads the program in, the second one what the first one left.
        for _ in 0..2 {
            to_its_end(&mut self.tool.version(&self.place), &self.log)?;
        }
        let measured = run(&mut command, target, &self.log)?;
        let now = self.count()?;
        let before = std::mem::replace(&mut self.stored, now);
        let sample = Sample {
            step,
            run: measured,
            added_bytes: self.stored.0.saturating_sub(before.0),
            parity_bytes: self.stored.1.saturating_sub(before.1),
        };
        tell(&sample);
        self.samples.push(sample);
        Ok(())
    }

    /// What is stored now: bytes without parity, and bytes of parity.
    fn count(&self) -> Result<(u64, u64)> {
        let all = bytes_below(&self.place.repo)?;
        let parity = self.tool.parity_bytes(&self.place)?;
        Ok((all.saturating_sub(parity), parity))
    }
}

/// The first word that looks like a version: a digit first, and a dot in it.
fn version_in(said: &str) -> String {
    let is = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let clean = |word: &'_ str| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    said.split_whitespace().find(is).map_or_else(|| "unknown".to_owned(), clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::tools::Copy;
    use crate::rows::make_folder;

    #[test]
    fn a_version_is_found_in_what_tools_say() {
        assert_eq!(version_in("rustic 0.11.4\n"), "0.11.4");
        assert_eq!(version_in("restic 0.14.0 compiled with go1.19.8"), "0.14.0");
        assert_eq!(version_in("cp (GNU coreutils) 9.1\nCopyright"), "9.1");
        assert_eq!(version_in("nothing"), "unknown");
    }

    #[test]
    fn a_copy_goes_through_its_steps_and_the_data_is_home_again() {
        let top = tempfile::tempdir().unwrap();
        let data = DataSet {
            gen0: top.path().join("gen0"),
            gen1: top.path().join("gen1"),
            source: top.path().join("source"),
            place: top.path().join("source/data"),
            story: String::new(),
        };
        fs::create_dir(&data.source).unwrap();
        make_folder(&data.gen0, 2, 8, 1).unwrap();
        make_folder(&data.gen1, 2, 8, 2).unwrap();
        let plan = Plan { data, work: top.path().join("work"), rounds: 2, cold: false };
        let courses = compare(&plan, &[Box::new(Copy)], |_| ()).unwrap();
        let steps: Vec<_> = courses[0].samples.iter().map(|s| (s.step, s.added_bytes)).collect();
        let bytes = 2 * 8 * 16 * 1024;
        let round = [(Step::Full, bytes), (Step::Restore, 0)];
        assert_eq!(steps, [round, round].concat());
        assert!(plan.data.gen0.exists() && plan.data.gen1.exists() && !plan.work.exists());
    }
}
