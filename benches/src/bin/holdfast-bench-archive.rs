//! `holdfast-bench-archive`: the log of a burst of sysbench's writes, received by the archive and by `mysqlbinlog --raw`;
//! and commits that wait for the archive beside commits that wait for a stock replica. Both in one run.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use holdfast_benches::rig::archive::Rig;
use holdfast_benches::rig::dataset::{self, Place};
use holdfast_benches::rig::find::{Answer, ask};
use holdfast_benches::rig::stored::{Stored, stored};

/// What the archive receives a second, and what a commit costs that waits for it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Only ask an archive of so many transactions; 10,000,000 are asked at the end of a whole run
    #[arg(long, value_name = "TRANSACTIONS")]
    find: Option<u64>,
    /// Only say what the logs of this repository take, and their index
    #[arg(long, value_name = "REPOSITORY")]
    stored: Option<PathBuf>,
    /// How often all take turns
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each turn of commits
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-archive: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if let Some(transactions) = arguments.find {
        return questions(&arguments.place.top()?, transactions);
    }
    if let Some(repository) = &arguments.stored {
        print(&stored(repository)?);
        return Ok(());
    }
    let (top, servers, scale) = (arguments.place.top()?, arguments.place.servers()?, arguments.place.scale());
    let data = dataset::get(&top, scale, &servers)?;
    println!("{}", data.story);
    let rig = || Rig::new(data.clone(), top.join(scale.name), top.join("archive"), &servers);
    for side in rig()?.receive(arguments.rounds)? {
        let mb = side.bytes as f64 / 1e6;
        println!(
            "{:17} {:7.1} MB in {:6.2} s: {:6.0} MB/s, {:6.0} MB a second of processor time",
            side.side,
            mb,
            side.seconds,
            mb / side.seconds,
            mb / side.cpu_seconds
        );
        if let Some(stored) = &side.stored {
            print(stored);
        }
    }
    for clients in [1, 8] {
        println!("commits of {clients} client(s), microseconds:");
        for (waiting, times) in
            rig()?.commits(clients, Duration::from_secs(arguments.seconds), arguments.rounds)?
        {
            println!(
                "{:29} {:8} commits: p50 {:6}, p99 {:6}, p99.9 {:6}, longest {:7}",
                waiting.words(),
                times.len(),
                times.value_at_quantile(0.5),
                times.value_at_quantile(0.99),
                times.value_at_quantile(0.999),
                times.max()
            );
        }
    }
    questions(&top, 10_000_000)
}

/// What a log takes, and its index beside it.
fn print(stored: &Stored) {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "  {:.1} MB of events stored in {:.1} MB, their index in {:.2} MB: {:.2} % of that; all else {:.1} MB",
        mb(stored.raw),
        mb(stored.events),
        mb(stored.index),
        stored.share() * 100.0,
        mb(stored.other)
    );
}

fn questions(top: &Path, transactions: u64) -> Result<(), Box<dyn Error>> {
    let (answers, bytes) = ask(top, transactions)?;
    println!("an archive of {transactions} transactions, its index alone: {:.1} MB", bytes as f64 / 1e6);
    for Answer { question, found, seconds } in answers {
        println!("{question:32} {seconds:6.2} s, {found} transactions");
    }
    Ok(())
}
