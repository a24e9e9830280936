//! What came of each mutant, in a file that a later run goes on from.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::{fs, io};

use crate::find::Mutant;

/// What came of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A test failed: which one.
    Killed(String),
    /// A test took many times as long as it does: which one.
    Endless(String),
    /// The compiler refused it.
    NotRust,
    /// No test comes by.
    Unreached,
    /// All tests that come by are green.
    Survived,
}

impl Verdict {
    fn word(&self) -> (&'static str, &str) {
        match self {
            Self::Killed(test) => ("killed", test),
            Self::Endless(test) => ("endless", test),
            Self::NotRust => ("not-rust", ""),
            Self::Unreached => ("unreached", ""),
            Self::Survived => ("survived", ""),
        }
    }

    fn parse(word: &str, test: &str) -> Option<Self> {
        Some(match word {
            "killed" => Self::Killed(test.to_owned()),
            "endless" => Self::Endless(test.to_owned()),
            "not-rust" => Self::NotRust,
            "unreached" => Self::Unreached,
            "survived" => Self::Survived,
            _ => return None,
        })
    }

    pub fn is_noticed(&self) -> bool {
        matches!(self, Self::Killed(_) | Self::Endless(_))
    }
}

/// A mutant's name: where it is and what it does, without the line, which moves.
pub fn name(file: &str, mutant: &Mutant) -> String {
    format!("{file}\t{}\t{}", mutant.function, mutant.what)
}

/// Verdicts that an earlier run wrote down, by the mutants' names; several of one name in their order.
pub fn read(path: &Path) -> BTreeMap<String, Vec<Verdict>> {
    let mut found: BTreeMap<String, Vec<Verdict>> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let mut words = line.splitn(6, '\t');
        let (Some(word), Some(test), Some(_line)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let rest: Vec<&str> = words.collect();
        if let Some(verdict) = Verdict::parse(word, test) {
            found.entry(rest.join("\t")).or_default().push(verdict);
        }
    }
    found
}

/// Writes all verdicts, one a line.
pub fn write<'a>(
    path: &Path,
    all: impl Iterator<Item = (&'a str, &'a Mutant, &'a Verdict)>,
) -> io::Result<()> {
    let mut out = Vec::new();
    for (file, mutant, verdict) in all {
        let (word, test) = verdict.word();
        writeln!(out, "{word}\t{test}\t{}\t{}", mutant.line, name(file, mutant))?;
    }
    fs::write(path, out)
}

/// How many of each kind.
#[derive(Debug, Default)]
pub struct Totals {
    killed: usize,
    endless: usize,
    not_rust: usize,
    unreached: usize,
    survived: usize,
}

impl Totals {
    pub fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Killed(_) => self.killed += 1,
            Verdict::Endless(_) => self.endless += 1,
            Verdict::NotRust => self.not_rust += 1,
            Verdict::Unreached => self.unreached += 1,
            Verdict::Survived => self.survived += 1,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noticed = self.killed + self.endless;
        let tried = noticed + self.unreached + self.survived;
        write!(
            f,
            "{tried} mutants, {noticed} noticed ({:.1} %): {} by a red test, {} by one that would not end; {} survived, {} where no \
             test comes by; {} more do not compile",
            100.0 * noticed as f64 / tried.max(1) as f64,
            self.killed,
            self.endless,
            self.survived,
            self.unreached,
            self.not_rust
        )
    }
}
