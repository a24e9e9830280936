//! Mutants of the source text: small wrong changes, each of which some test must notice.
//!
//! All mutants of a scope are woven into one copy of the tree, where an environment variable chooses one at run time, so that
//! there is one build. Each test is run once without a mutant, to learn which ones it comes by; then, for each mutant,
//! those tests are run, quickest first, until one is red. Start reading in `find.rs` (what is changed) and `weave.rs`
//! (how).

mod build;
mod find;
mod report;
mod scope;
mod tree;
mod trial;
mod values;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use build::Failed;
use find::Mutant;
use report::Verdict;
use scope::{SCOPES, Scope};
use trial::{Bench, Ending, Test};

const USAGE: &str = "\
mutants SCOPE [--jobs N] [--sample N] [--seed N] [--longest SECONDS] [--file PART]
        [--package NAME] [--from N] [--count N] [--again] [--list]
  SCOPE      format: the crate format; commit: what the store does up to its acknowledgements
  --sample   so many of the mutants, drawn with the seed (1), instead of all
  --longest  leave out tests that take longer than this without a mutant (30)
  --file     only files whose path holds this; given more than once, or the others
  --package  only the tests of this package, of those that the scope has
  --from     begin with the mutant of this number, as --list has them (1), and keep what is known of the others
  --count    so many of them; a run that is ended goes on by --from as well
  --again    keep what the last run of this scope noticed or could not compile, and try the others only
  --list     print the mutants, and try none";

struct Options {
    scope: &'static Scope,
    jobs: usize,
    sample: Option<usize>,
    seed: u64,
    longest: Duration,
    files: Vec<String>,
    package: Option<String>,
    slice: Option<Slice>,
    again: bool,
    list: bool,
}

/// Some of the mutants in the order of their numbers.
#[derive(Clone, Copy)]
struct Slice {
    from: u32,
    count: usize,
}

impl Default for Slice {
    fn default() -> Self {
        Self { from: 1, count: usize::MAX }
    }
}

fn main() -> ExitCode {
    let done = options().and_then(|options| campaign(&options));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            eprintln!("mutants: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Failed> {
    let mut words = std::env::args().skip(1);
    let usage = || Failed(USAGE.to_owned());
    let name = words.next().ok_or_else(usage)?;
    let scope = SCOPES.iter().find(|scope| scope.name == name).ok_or_else(usage)?;
    let mut options = Options {
        scope,
        jobs: 2,
        sample: None,
        seed: 1,
        longest: Duration::from_secs(30),
        files: Vec::new(),
        package: None,
        slice: None,
        again: false,
        list: false,
    };
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|value| value.parse().ok()).ok_or_else(usage);
        match word.as_str() {
            "--jobs" => options.jobs = number()? as usize,
            "--sample" => options.sample = Some(number()? as usize),
            "--seed" => options.seed = number()?,
            "--longest" => options.longest = Duration::from_secs(number()?),
            "--file" => options.files.push(words.next().ok_or_else(usage)?),
            "--package" => options.package = Some(words.next().ok_or_else(usage)?),
            "--from" => options.slice.get_or_insert_default().from = number()? as u32,
            "--count" => options.slice.get_or_insert_default().count = number()? as usize,
            "--again" => options.again = true,
            "--list" => options.list = true,
            _ => return Err(usage()),
        }
    }
    Ok(options)
}

fn campaign(options: &Options) -> Result<(), Failed> {
    let io = |err: std::io::Error| Failed(err.to_string());
    let top = std::env::current_dir().map_err(io)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), |dir| top.join(dir));
    // A folder apart: in the common one, the programs would be woven ones from now on.
    let (work, target) = (target.join("mutants"), target.join("mutants/build"));
    let results = work.join(format!("{}.tsv", options.scope.name));
    let tree = tree::Tree::copy(&top, work.join("tree"), options.scope).map_err(io)?;

    let all = numbered(&tree, options)?;
    if options.list {
        for (file, (number, mutant)) in flat(&all) {
            println!("{number}\t{file}:{}\t{}\t{}", mutant.line, mutant.function, mutant.what);
        }
        return Ok(());
    }
    let go_on = options.again || options.slice.is_some();
    let known = if go_on { verdicts_of(&all, report::read(&results)) } else { BTreeMap::new() };
    // A slice is woven like all of it: the next one needs no other build.
    let mut woven = all.clone();
    for list in woven.values_mut() {
        list.retain(|(number, _)| match known.get(number) {
            None => true,
            Some(Verdict::NotRust) => false,
            Some(verdict) => options.slice.is_some() || !verdict.is_noticed(),
        });
    }
    let Slice { from, count } = options.slice.unwrap_or_default();
    let is_due = |number: &u32| !(options.again && known.get(number).is_some_and(Verdict::is_noticed));
    let numbers = flat(&woven).map(|(_, (number, _))| *number);
    let due: BTreeSet<u32> = numbers.filter(|number| *number >= from).take(count).filter(is_due).collect();
    eprintln!("mutants: {} to try", due.len());
    let mut verdicts = known;
    verdicts.retain(|number, _| !due.contains(number));
    let dropped = build::until_it_compiles(&tree, &mut woven, &options.scope.crates(), &target)?;
    verdicts.extend(dropped.into_iter().map(|number| (number, Verdict::NotRust)));
    let wanted = |name: &&str| options.package.as_ref().is_none_or(|only| only == name);
    let packages: Vec<&str> = options.scope.tested.iter().copied().filter(wanted).collect();
    let programs = build::programs(&tree, &packages, &target)?;
    let bench = Bench::new(work.join("scratch"))?;
    let (tests, left_out) = bench.tests(&programs, options.longest)?;
    for test in &left_out {
        eprintln!("mutants: left out, as it takes longer than {} s: {test}", options.longest.as_secs());
    }

    let numbers: Vec<u32> = due.into_iter().filter(|number| !verdicts.contains_key(number)).collect();
    let found = Mutex::new(verdicts);
    let next = AtomicUsize::new(0);
    let keep = || {
        let held = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let lines = flat(&all).filter_map(|(file, (number, mutant))| Some((file, mutant, held.get(number)?)));
        report::write(&results, lines)
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(&number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = tried(&bench, &tests, number);
                    let count = {
                        let mut held = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        held.insert(number, verdict);
                        held.len()
                    };
                    if count % 10 == 0 {
                        let _ = keep();
                        eprintln!("mutants: {count} done, now about number {number}");
                    }
                }
            });
        }
    });
    keep().map_err(io)?;
    let held = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    print(&all, &held, &results);
    Ok(())
}

/// The tests that come by, quickest first, until one notices.
fn tried(bench: &Bench, tests: &[Test], number: u32) -> Verdict {
    let mut reached = false;
    for test in tests.iter().filter(|test| test.reaches.contains(&number)) {
        reached = true;
        match bench.with_mutant(test, number) {
            Ending::Green => {}
            Ending::Red => return Verdict::Killed(test.label()),
            Ending::Endless => return Verdict::Endless(test.label()),
        }
    }
    if reached { Verdict::Survived } else { Verdict::Unreached }
}

type ByFile = BTreeMap<String, Vec<(u32, Mutant)>>;

fn flat(all: &ByFile) -> impl Iterator<Item = (&str, &(u32, Mutant))> {
    all.iter().flat_map(|(file, list)| list.iter().map(move |each| (file.as_str(), each)))
}

/// The mutants of the scope, from 1 on, or a sample of them.
fn numbered(tree: &tree::Tree, options: &Options) -> Result<ByFile, Failed> {
    let mut number = 0;
    let mut all = ByFile::new();
    for (file, text) in tree.files() {
        let found = find::mutants(text).map_err(|err| Failed(format!("{file}: {err}")))?;
        let list: Vec<(u32, Mutant)> = found
            .into_iter()
            .map(|mutant| {
                number += 1;
                (number, mutant)
            })
            .collect();
        if options.files.is_empty() || options.files.iter().any(|part| file.contains(part.as_str())) {
            all.insert(file.to_owned(), list);
        }
    }
    if let Some(sample) = options.sample {
        let mut numbers: Vec<u32> = flat(&all).map(|(_, (number, _))| *number).collect();
        // Those whose hash with the seed is smallest: the same ones again for the same seed and tree.
        numbers.sort_by_key(|number| mixed(options.seed ^ u64::from(*number) << 32));
        let drawn: BTreeSet<u32> = numbers.into_iter().take(sample).collect();
        all.values_mut().for_each(|list| list.retain(|(number, _)| drawn.contains(number)));
    }
    Ok(all)
}

/// SplitMix64.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// What earlier runs have found of each.
fn verdicts_of(all: &ByFile, mut known: BTreeMap<String, Vec<Verdict>>) -> BTreeMap<u32, Verdict> {
    let mut found = BTreeMap::new();
    for (file, (number, mutant)) in flat(all) {
        if let Some(verdicts) = known.get_mut(&report::name(file, mutant))
            && !verdicts.is_empty()
        {
            found.insert(*number, verdicts.remove(0));
        }
    }
    found
}

fn print(all: &ByFile, verdicts: &BTreeMap<u32, Verdict>, results: &Path) {
    let mut totals = report::Totals::default();
    for (file, (number, mutant)) in flat(all) {
        let Some(verdict) = verdicts.get(number) else { continue };
        totals.count(verdict);
        let word = match verdict {
            Verdict::Survived => "survived",
            Verdict::Unreached => "unreached",
            _ => continue,
        };
        println!("{word}\t{file}:{}\t{}\t{}", mutant.line, mutant.function, mutant.what);
    }
    println!("{totals}");
    println!("each with its test: {}", PathBuf::from(results).display());
}
