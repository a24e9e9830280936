//! `holdfast-bench-table`: one table of twenty restored beside the whole server, from the same backup and the same log to the
//! same moment, in turns. `tools/bench table` sets up what it needs.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use holdfast_benches::rig::folder::remove;
use holdfast_benches::rig::machine::Machine;
use holdfast_benches::rig::measure::{Run, drop_caches, run};
use holdfast_benches::section::{TABLE, Table};
use holdfast_benches::table::source::{Source, table};
use holdfast_benches::table::{ASKED, TABLE_MIB, TABLES};

/// The table that is restored: one in the middle.
const CHOSEN: u32 = 7;

/// One table restored beside the whole server.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The holdfast program
    #[arg(long, value_name = "FILE", default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Folder of an unpacked MySQL
    #[arg(long, value_name = "DIR", default_value = "servers/mysql")]
    mysql: PathBuf,
    /// A folder on the disk to measure; everything made there is removed
    #[arg(long, value_name = "DIR", default_value = "target")]
    work: PathBuf,
    /// Percent of 20 tables of 1 GiB each; at its height the disk holds about four times that
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    size: u32,
    /// Rows of a thousand of each table that are changed behind the backup, and replayed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
    changed: u32,
    /// How often both are done
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// The page whose section is written
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-table: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One turn of both.
struct Turn {
    whole: Run,
    table: Run,
    cold: bool,
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let holdfast = arguments.holdfast.canonicalize()?;
    let mysql = arguments.mysql.canonicalize()?;
    let work = tempfile::Builder::new().prefix("table-").tempdir_in(&arguments.work)?;
    let top = work.path().canonicalize()?;
    let machine = Machine::look(&top);
    let begun = Instant::now();
    let mib = (TABLE_MIB * arguments.size / 100).max(1);
    let source = Source::make(&top, &holdfast, &mysql, mib, arguments.changed)?;
    remove(&top.join("live"))?;
    eprintln!("the data: {:.0} s", begun.elapsed().as_secs_f64());
    println!(
        "{TABLES} tables, {:.2} GB in all, {:.3} GB each; {} rows changed behind the backup",
        source.bytes as f64 / 1e9,
        source.table_bytes as f64 / 1e9,
        source.changed
    );
    let chosen = table(CHOSEN);
    let mut turns = Vec::new();
    for round in 0..arguments.rounds {
        let one = |into: &str, more: &[&str], numbers: &[u32]| -> Result<(Run, bool), Box<dyn Error>> {
            let cold = drop_caches().is_ok();
            let args = [["restore", "bench", "--to", "latest", "--into", into].as_slice(), more].concat();
            let taken = run(&mut source.command(&args), &top, &top.join("log"))?;
            if round == 0 {
                source.must_have(&top.join(into), numbers)?;
            }
            remove(&top.join(into))?;
            Ok((taken, cold))
        };
        let all: Vec<u32> = (0..TABLES).collect();
        let (whole, cold) = one("whole", &[], &all)?;
        let (table, _) = one("part", &["--table", &chosen], &[CHOSEN])?;
        println!(
            "round {}: the whole server {:.2} s, one table {:.2} s: {:.3} of it{}",
            round + 1,
            whole.seconds,
            table.seconds,
            table.seconds / whole.seconds,
            if whole.is_noisy() || table.is_noisy() { "; others worked meanwhile" } else { "" }
        );
        turns.push(Turn { whole, table, cold });
    }
    let text = section(arguments, &machine, &source, &turns);
    println!("\n{text}");
    if let Some(out) = &arguments.out {
        let page = std::fs::read_to_string(out).unwrap_or_default();
        std::fs::write(out, TABLE.put_into(&page, &text))?;
    }
    Ok(())
}

fn section(arguments: &Arguments, machine: &Machine, source: &Source, turns: &[Turn]) -> String {
    let preface = format!(
        "Written by `tools/bench table` on {}: {} cores ({}), {:.0} GiB of memory, {}, load when it began {}; {}. \
         {TABLES} tables of sysbench's shape, {:.2} GB in all, {:.3} GB each ({} % of 1 GiB each), {} row changes of all of them behind the backup, already archived. \
         `holdfast restore --to latest` of the whole server and of one table, from the same backup and log, in turns, {} times, the proof included, each to the end of a sync{}. In the first round every \
         restored table has the checksum that the source's had. {} of {} turns were disturbed.",
        jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date(),
        machine.cores,
        machine.processor,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.file_system,
        machine.load,
        source.version(),
        source.bytes as f64 / 1e9,
        source.table_bytes as f64 / 1e9,
        arguments.size,
        source.changed,
        arguments.rounds,
        if turns.iter().all(|turn| turn.cold) { ", with a cold cache" } else { ", with a warm cache" },
        turns.iter().filter(|turn| turn.whole.is_noisy() || turn.table.is_noisy()).count(),
        turns.len(),
    );
    let of = |pick: fn(&Turn) -> f64| median(turns.iter().map(pick).collect());
    let ratio = of(|turn| turn.table.seconds / turn.whole.seconds);
    let mut figures = Table::new(
        "One table beside the whole server",
        "",
        &["restored", "seconds (median)", "processor seconds", "share of the whole", "asked", "reached"],
    );
    let cells = |name: &str, seconds: f64, cpu: f64, rest: [String; 3]| {
        let first = [name.to_owned(), format!("{seconds:.2}"), format!("{cpu:.2}")];
        [first, rest].concat()
    };
    let none = || String::from("-");
    figures.row(cells(
        "the whole server",
        of(|turn| turn.whole.seconds),
        of(|turn| turn.whole.cpu_seconds),
        [none(), none(), none()],
    ));
    let reached = if ratio <= ASKED { "yes" } else { "**no**" };
    figures.row(cells(
        "one table of twenty",
        of(|turn| turn.table.seconds),
        of(|turn| turn.table.cpu_seconds),
        [format!("**{ratio:.3}**"), format!("{ASKED}"), reached.to_owned()],
    ));
    TABLE.text(&preface, &[figures])
}

/// The middle one; of an even number the lower of both.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
