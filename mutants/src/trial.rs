//! Tests run in processes of their own: once to learn which mutants each comes by, then for each mutant those that do.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::build::{Failed, Program};

/// Address space that a test may take: a mutant that fills the memory is stopped here.
const MEMORY_KIB_MAX: u64 = 12 << 20;
/// Largest file that a test may write.
const FILE_KIB_MAX: u64 = 4 << 20;

/// One test, and what it does without a mutant.
#[derive(Clone, Debug)]
pub struct Test {
    pub program: Program,
    pub name: String,
    pub took: Duration,
    pub reaches: BTreeSet<u32>,
}

impl Test {
    /// Program and test, as a person would look for them.
    pub fn label(&self) -> String {
        format!("{} {}", self.program.name, self.name)
    }
}

/// How a run of a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Green,
    Red,
    /// It took several times as long as without a mutant.
    Endless,
}

/// A folder of our own for what the tests leave behind.
pub struct Bench {
    folder: PathBuf,
}

impl Bench {
    pub fn new(folder: PathBuf) -> Result<Self, Failed> {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|err| Failed(format!("{}: {err}", folder.display())))?;
        Ok(Self { folder })
    }

    /// Each test of these programs, once and alone; those that take longer than `longest` are left out.
    pub fn tests(&self, programs: &[Program], longest: Duration) -> Result<(Vec<Test>, Vec<String>), Failed> {
        let (mut tests, mut left_out) = (Vec::new(), Vec::new());
        for program in programs {
            let listed = Command::new(&program.path)
                .args(["--list", "--format", "terse"])
                .current_dir(&program.folder)
                .output()
                .map_err(|err| Failed(format!("{}: {err}", program.name)))?;
            for line in String::from_utf8_lossy(&listed.stdout).lines() {
                let Some(name) = line.strip_suffix(": test") else { continue };
                let reached = self.folder.join("reached");
                let _ = fs::remove_file(&reached);
                let begun = Instant::now();
                let variable = [("MUTANTS_REACHED", reached.to_string_lossy().into_owned())];
                let ending = self.run(program, name, &variable, longest.as_secs(), longest.as_secs());
                let mut test = Test {
                    program: program.clone(),
                    name: name.to_owned(),
                    took: begun.elapsed(),
                    reaches: BTreeSet::new(),
                };
                match ending {
                    Ending::Endless => {
                        left_out.push(test.label());
                        continue;
                    }
                    Ending::Red => return Err(Failed(format!("{} fails without any mutant", test.label()))),
                    Ending::Green => {}
                }
                let numbers = fs::read_to_string(&reached).unwrap_or_default();
                test.reaches = numbers.lines().filter_map(|line| line.parse().ok()).collect();
                if !test.reaches.is_empty() {
                    tests.push(test);
                }
            }
            eprintln!("mutants: {} looked at", program.name);
        }
        tests.sort_by_key(|test| test.took);
        Ok((tests, left_out))
    }

    /// The test with one mutant chosen.
    pub fn with_mutant(&self, test: &Test, number: u32) -> Ending {
        let took = test.took.as_secs();
        self.run(&test.program, &test.name, &[("MUTANT", number.to_string())], 2 + 6 * took, 60 + 20 * took)
    }

    /// `cpu_s` of computing, `wall_s` by the clock.
    fn run(
        &self,
        program: &Program,
        test: &str,
        variables: &[(&str, String)],
        cpu_s: u64,
        wall_s: u64,
    ) -> Ending {
        let folder = self.folder.join(format!("{:?}", std::thread::current().id()));
        let _ = fs::remove_dir_all(&folder);
        if fs::create_dir_all(&folder).is_err() {
            return Ending::Endless;
        }
        let limits = format!(
            "ulimit -c 0 -v {MEMORY_KIB_MAX} -f {FILE_KIB_MAX} -t {cpu_s}; exec timeout --signal=KILL {wall_s} \"$@\""
        );
        let mut command = Command::new("bash");
        command.args(["-c", &limits, "-"]).arg(&program.path).args(["--exact", test, "--test-threads=1"]);
        command
            .current_dir(&program.folder)
            .env("CARGO_MANIFEST_DIR", &program.folder)
            .env("TMPDIR", &folder);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        // A case that fails would be written down and tried first from then on, for other mutants too.
        command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = fs::remove_dir_all(&folder);
        match status {
            Ok(status) if status.success() => Ending::Green,
            // What timeout gives, and what a limit does (SIGXCPU, SIGKILL).
            Ok(status) => match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
                (Some(124 | 137 | 152), _) | (_, Some(9 | 24)) => Ending::Endless,
                _ => Ending::Red,
            },
            Err(_) => Ending::Endless,
        }
    }
}
