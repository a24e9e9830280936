//! `plain SECONDS SEED FOLDER-OF-SEEDS FOLDER-OF-ARTIFACTS TARGET...` runs targets without libFuzzer: every seed, then
//! changed seeds until the time is over. `plain --input TARGET FILE` runs one input.
//!
//! It sees no coverage and so finds less; it is for machines without a C++ compiler.

use std::io::Write;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_fuzz::TARGETS;

type Outcome<T> = Result<T, String>;

fn main() {
    if let Err(reason) = run() {
        eprintln!("plain: {reason}");
        std::process::exit(1);
    }
}

fn run() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--input", name, file] => {
            target(name)?(&read(Path::new(file))?);
            Ok(())
        }
        [seconds, seed, seeds, artifacts, names @ ..] => {
            let limit = Duration::from_secs(seconds.parse().map_err(|_| "SECONDS is no number")?);
            let seed: u64 = seed.parse().map_err(|_| "SEED is no number")?;
            for name in names {
                campaign(name, limit, seed, Path::new(seeds), Path::new(artifacts))?;
            }
            Ok(())
        }
        _ => Err("see the top of fuzz/src/plain.rs".into()),
    }
}

fn target(name: &str) -> Outcome<fn(&[u8])> {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, function)| *function).ok_or_else(|| format!("there is no target {name}"))
}

fn read(file: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn campaign(name: &str, limit: Duration, seed: u64, seeds: &Path, artifacts: &Path) -> Outcome<()> {
    let function = target(name)?;
    let folder = seeds.join(name);
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    let corpus = files.iter().map(|file| read(file)).collect::<Outcome<Vec<_>>>()?;
    let started = Instant::now();
    let mut random = Random(seed | 1);
    let mut runs = 0_u64;
    let mut one = |input: &[u8]| -> Outcome<()> {
        runs += 1;
        if catch_unwind(|| function(input)).is_ok() {
            return Ok(());
        }
        let file = artifacts.join(name).join(format!("crash-{}", &blake3::hash(input).to_hex()[..16]));
        std::fs::create_dir_all(artifacts.join(name)).map_err(|error| error.to_string())?;
        std::fs::write(&file, input).map_err(|error| error.to_string())?;
        Err(format!("target {name} fails, seed {seed}; the input is {}", file.display()))
    };
    corpus.iter().try_for_each(|input| one(input))?;
    while started.elapsed() < limit {
        for _ in 0..64 {
            let mut input = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
            for _ in 0..1 + random.below(6) {
                random.change(&mut input, &corpus);
            }
            one(&input)?;
        }
    }
    let _ = writeln!(std::io::stdout(), "{name} {runs} {}", started.elapsed().as_secs().max(1));
    Ok(())
}

/// Xorshift64*; enough to choose changes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit.max(1)
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        match (self.below(7), input.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << self.below(8),
            (1, Some(byte)) => *byte = self.next() as u8,
            (2, Some(byte)) => *byte = [0, 1, 0x7f, 0x80, 0xfb, 0xfe, 0xff][self.below(7)],
            (3, Some(_)) => input.truncate(at),
            (4, Some(_)) => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at..end);
            }
            (5, _) => {
                let byte = self.next() as u8;
                let count = 1 + self.below(8);
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
            _ => {
                let other = corpus.get(self.below(corpus.len())).map_or(&[][..], Vec::as_slice);
                let from = self.below(other.len());
                let end = (from + self.below(64)).min(other.len());
                input.splice(at..at, other.get(from..end).unwrap_or_default().iter().copied());
            }
        }
    }
}
