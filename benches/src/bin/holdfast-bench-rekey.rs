//! `holdfast-bench-rekey`: how fast `key rotate --rekey` seals a repository anew, beside `fsck --full` of the same
//! repository in the same round: both read and decode every byte, one writes them as well.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use holdfast_benches::rig::folder::bytes_below;
use holdfast_benches::rig::measure::{Run, drop_caches, run, to_its_end};
use holdfast_benches::rows;

/// Pages of a table file in a MiB.
const PAGES_PER_MIB: u32 = 64;
/// Files of the folder that is backed up.
const FILES: u32 = 8;

/// Re-encryption beside a full check.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The holdfast program
    #[arg(long, value_name = "FILE", default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// A folder on the disk to measure; everything made there is removed
    #[arg(long, value_name = "DIR", default_value = "target")]
    work: PathBuf,
    /// MiB of table files to back up
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    mib: u32,
    /// How often both are done
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-rekey: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let program = arguments.holdfast.canonicalize()?;
    let work = tempfile::Builder::new().prefix("rekey-").tempdir_in(&arguments.work)?;
    let path = |name: &str| work.path().join(name);
    let (data, key, repository, log) = (path("data"), path("key"), path("repository"), path("log"));
    std::fs::create_dir(&data)?;
    rows::make_folder(&data, FILES, (arguments.mib / FILES).max(1) * PAGES_PER_MIB, 1)?;
    // A key file, so that no time goes into Argon2id.
    std::fs::write(&key, [7; 32])?;
    let holdfast = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).current_dir(work.path()).env("HOME", work.path());
        command.env("XDG_CONFIG_HOME", work.path()).env("HOLDFAST_REPO", &repository);
        command.env("HOLDFAST_KEY_FILE", &key);
        command
    };
    for args in [
        ["init", "--kit", "kit"].as_slice(),
        &["server", "add", "tables", "--folder", "data"],
        &["backup", "tables"],
    ] {
        to_its_end(&mut holdfast(args), &log)?;
    }
    let stored = bytes_below(&repository)?;
    println!("{} MiB of tables, {stored} bytes stored", arguments.mib);
    println!(
        "| round | fsck --full | key rotate --rekey | times as long | remarks |\n| --- | --- | --- | --- | --- |"
    );
    for round in 1..=arguments.rounds {
        let one = |args: &[&str]| cold(&mut holdfast(args), work.path(), &log);
        let (check, rekey) = (one(&["fsck", "--full"])?, one(&["key", "rotate", "--rekey"])?);
        let noisy = if check.is_noisy() || rekey.is_noisy() { "others worked meanwhile" } else { "" };
        let times = rekey.seconds / check.seconds;
        println!(
            "| {round} | {} | {} | {times:.2} | {noisy} |",
            shown(&check, stored),
            shown(&rekey, stored)
        );
    }
    Ok(())
}

/// With a cold cache, where this user may drop it.
fn cold(command: &mut Command, work: &Path, log: &Path) -> Result<Run, Box<dyn Error>> {
    let _ = drop_caches();
    Ok(run(command, work, log)?)
}

fn shown(run: &Run, stored: u64) -> String {
    let (rate, memory) = (stored as f64 / 1e6 / run.seconds, run.memory_peak_bytes >> 20);
    format!("{:.2} s, {rate:.0} MB/s, {memory} MiB", run.seconds)
}
