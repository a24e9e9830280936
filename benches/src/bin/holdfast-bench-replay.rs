//! `holdfast-bench-replay`: replay of several loads, Holdfast beside the server's own parallel applier and
//! `mysqlbinlog | mysql`, in one run. `tools/bench replay` sets up what it needs.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use holdfast_benches::replay::data::Data;
use holdfast_benches::replay::files::Files;
use holdfast_benches::replay::page::{Measured, Setting, load_named, section};
use holdfast_benches::replay::sides::{Rig, Sample, Side};
use holdfast_benches::replay::{LOADS, Load, Size};
use holdfast_benches::rig::folder::remove;
use holdfast_benches::rig::machine::Machine;
use holdfast_benches::section::REPLAY;
use holdfast_engine::Programs;
use holdfast_replay::net::{Mode, Options};
use holdfast_replay::scan::scan;

/// Replay of the same logs from the same folder, side by side.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Folder for the data, kept between runs, and for copies, removed afterwards
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of an unpacked MySQL
    #[arg(long, value_name = "DIR")]
    mysql: PathBuf,
    /// Folder of an unpacked sysbench
    #[arg(long, value_name = "DIR")]
    sysbench: PathBuf,
    /// Percent of 4,000,000 rows and 196,250 transactions of sysbench, and of the other loads; the skewed one has twice as much
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100))]
    size: u32,
    /// How often Holdfast and the applier take turns
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Only these loads
    #[arg(long)]
    only: Vec<String>,
    /// Without `mysqlbinlog | mysql`, which takes most of the time
    #[arg(long)]
    no_client: bool,
    /// Holdfast alone
    #[arg(long)]
    alone: bool,
    /// Holdfast once more each time, on a server with the settings that a restore gives it
    #[arg(long)]
    tuned: bool,
    /// Makes the data and measures nothing
    #[arg(long)]
    prepare: bool,
    /// Connections of Holdfast
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// KiB in a chunk
    #[arg(long, default_value_t = 4096)]
    chunk: usize,
    /// The page whose section is written
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut loads: Vec<Load> = LOADS.to_vec();
    if !arguments.only.is_empty() {
        loads = arguments.only.iter().map(|name| load_named(name)).collect::<Result<_, _>>()?;
    }
    let there = |what: &str, folder: &PathBuf, program: &str| match folder.join(program).canonicalize() {
        Ok(_) => Ok(folder.canonicalize()?),
        Err(error) => {
            Err(format!("{}/{program}: {error}. `tools/get-server {what}` unpacks it", folder.display())
                .into())
        }
    };
    let there = |what, folder, program| -> Result<PathBuf, Box<dyn Error>> { there(what, folder, program) };
    let mysql = there("mysql", &arguments.mysql, "bin/mysqlbinlog")?;
    let sysbench = there("sysbench", &arguments.sysbench, "bin/sysbench")?;
    let programs = Programs::find(Some(&mysql), holdfast_mysql::Flavor::MySql, None)?;
    std::fs::create_dir_all(&arguments.data)?;
    let top = arguments.data.canonicalize()?;
    let (machine, size) = (Machine::look(&top), Size(arguments.size));
    let begun = Instant::now();
    let data = Data::get(&top, size, &programs, &sysbench)?;
    eprintln!("the data: {:.0} s", begun.elapsed().as_secs_f64());
    if arguments.prepare {
        return Ok(());
    }
    let options = Options {
        mode: Mode::Net,
        connections: arguments.connections,
        chunk_bytes: arguments.chunk << 10,
        ..Options::default()
    };
    let rig =
        Rig { data: &data, work: top.join("replay-work"), programs: &programs, client: mysql.join("bin") };
    let mut measured = Vec::new();
    for load in loads {
        let begun = Instant::now();
        let files = Files::of(&data.log(load.log))?;
        let summary = scan(&files)?;
        let log = (summary.transactions, summary.rows, files.bytes());
        println!("{}: {} transactions, {} row changes, {} bytes of log", load.title, log.0, log.1, log.2);
        let mut samples = Vec::new();
        for _ in 0..arguments.rounds {
            samples.push(show(rig.take(Side::Holdfast, &load, &options)?));
            if arguments.tuned {
                samples.push(show(rig.take(Side::Tuned, &load, &options)?));
            }
            if !arguments.alone {
                samples.push(show(rig.take(Side::Applier, &load, &options)?));
            }
        }
        if !arguments.alone && !arguments.no_client {
            samples.push(show(rig.take(Side::Client, &load, &options)?));
        }
        measured.push(Measured { load, log, table_bytes: data.table_bytes(load.log), samples });
        eprintln!("{}: {:.0} s in all", load.name, begun.elapsed().as_secs_f64());
    }
    remove(&rig.work)?;
    let setting = Setting {
        machine,
        date: jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().to_string(),
        version: programs.version.to_string(),
        size,
        rounds: arguments.rounds,
        connections: arguments.connections,
        chunk_bytes: options.chunk_bytes,
    };
    let text = section(&setting, &measured);
    println!("\n{text}");
    if let Some(out) = &arguments.out {
        let page = std::fs::read_to_string(out).unwrap_or_default();
        std::fs::write(out, REPLAY.put_into(&page, &text))?;
    }
    Ok(())
}

fn show(sample: Sample) -> Sample {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    println!(
        "{:7.2} s, server {:6.2} s of processor, own {:5.2} s, {} rows written, load {load}: {}",
        sample.seconds,
        sample.server_cpu,
        sample.own_cpu,
        sample.written,
        sample.side.words()
    );
    for line in &sample.in_order {
        println!("          {line}");
    }
    sample
}
