//! From samples to the section of RESULTS.md.

use super::sides::{Sample, Side};
use super::{LOADS, Load, Size};
use crate::rig::figures::Spread;
use crate::rig::machine::Machine;
use crate::section::{REPLAY, Table};

/// What was measured of a load.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The load.
    pub load: Load,
    /// Transactions and row changes of its log, and its bytes.
    pub log: (u64, u64, u64),
    /// Bytes of its tables.
    pub table_bytes: u64,
    /// All samples.
    pub samples: Vec<Sample>,
}

impl Measured {
    fn of(&self, side: Side) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.side == side)
    }

    fn spread(&self, side: Side, of: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.of(side).map(of).collect())
    }

    fn median(&self, side: Side, of: impl Fn(&Sample) -> f64) -> f64 {
        self.spread(side, of).map_or(f64::NAN, |spread| spread.median)
    }

    /// How many times as fast Holdfast is.
    fn against(&self, other: Side) -> Option<f64> {
        let seconds = |side| self.spread(side, |sample| sample.seconds).map(|spread| spread.median);
        Some(seconds(other)? / seconds(Side::Holdfast)?)
    }
}

/// How the run was made.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The machine.
    pub machine: Machine,
    /// When, as a date.
    pub date: String,
    /// The server's version.
    pub version: String,
    /// How large.
    pub size: Size,
    /// Turns of Holdfast and the applier; the client has one.
    pub rounds: u32,
    /// Connections of Holdfast, and bytes of a chunk.
    pub connections: usize,
    /// Bytes in a chunk.
    pub chunk_bytes: usize,
}

/// The section.
#[must_use]
pub fn section(setting: &Setting, measured: &[Measured]) -> String {
    let machine = &setting.machine;
    let preface = format!(
        "Written by `tools/bench replay` on {}: {} cores ({}), {:.0} GiB of memory, {}, load when it began {}; {}. \
         Every side starts from a copy of the same folder, on a server with the same settings (no binlog, \
         `innodb_flush_log_at_trx_commit=2`, doublewrite on, no buffer pool loaded at the start, everything else as the server has it, and what the table says of the buffer pool), with the log on the \
         disk already; its time ends when the last change is committed. After each, CHECKSUM TABLE of every table of the load is what it was on \
         the source, or the run fails. Holdfast ({} connections, chunks of {} KiB) and the applier (4 workers, commit order off) take turns, medians of {}; \
         `mysqlbinlog | mysql` has one turn. Size: {} % of the loads that the asked figures were set for (`benches/src/replay.rs`). Holdfast's time includes its look through the log before the first write.",
        setting.date,
        machine.cores,
        machine.processor,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.file_system,
        machine.load,
        setting.version,
        setting.connections,
        setting.chunk_bytes >> 10,
        setting.rounds,
        setting.size.0,
    );
    let mut tables = vec![ratios(measured), seconds(measured), work(measured)];
    tables.extend(tuned(measured));
    tables.extend(ways(measured));
    REPLAY.text(&preface, &tables)
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "not measured".to_owned(), |ratio| format!("**{ratio:.1}x**"))
}

fn ratios(measured: &[Measured]) -> Table {
    let mut table = Table::new(
        "How many times as fast Holdfast is",
        "",
        &["load", "the server's applier", "asked", "reached", "mysqlbinlog \\| mysql", "asked", "reached"],
    );
    for one in measured {
        let (applier, client) = (one.against(Side::Applier), one.against(Side::Client));
        let load = one.load;
        let reached = |ratio: Option<f64>, asked: f64| match ratio {
            None => "",
            Some(ratio) if ratio >= asked => "yes",
            Some(_) => "**no**",
        };
        table.row(vec![
            load.title.to_owned(),
            times(applier),
            format!("{:.0}x", load.asked_of_applier),
            reached(applier, load.asked_of_applier).to_owned(),
            times(client),
            format!("{:.0}x", load.asked_of_client),
            reached(client, load.asked_of_client).to_owned(),
        ]);
    }
    table
}

fn seconds(measured: &[Measured]) -> Table {
    let head = [
        "load",
        "log",
        "tables, buffer pool",
        "holdfast, s",
        "the server's applier, s",
        "mysqlbinlog \\| mysql, s",
    ];
    let mut table = Table::new("Seconds (median, least - most)", "", &head);
    for one in measured {
        let (transactions, rows, bytes) = one.log;
        let cell = |side| {
            let spread = one.spread(side, |sample| sample.seconds);
            spread.map_or_else(String::new, |s| format!("{:.2} ({:.2} - {:.2})", s.median, s.least, s.most))
        };
        table.row(vec![
            one.load.title.to_owned(),
            format!("{transactions} transactions, {rows} row changes, {:.0} MB", bytes as f64 / 1e6),
            format!("{:.0} MB, {} MiB", one.table_bytes as f64 / 1e6, one.load.pool(one.table_bytes)),
            cell(Side::Holdfast),
            cell(Side::Applier),
            cell(Side::Client),
        ]);
    }
    table
}

fn work(measured: &[Measured]) -> Table {
    let mut table = Table::new(
        "Work",
        "Rows are those of the log (raw) and those that Holdfast hands to the server (net). Processor time is the server's, and Holdfast's own \
         beside it; memory is the resident memory of the program that replays, at its peak.",
        &[
            "load",
            "raw rows for each net row",
            "raw rows/s per core: holdfast, applier, client",
            "server's processor us per net row",
            "server's processor s: holdfast, applier, client",
            "holdfast's own s",
            "resident, MiB",
        ],
    );
    for one in measured {
        let raw = one.log.1 as f64;
        let net = one.median(Side::Holdfast, |sample| sample.written as f64);
        let cpu = |side| one.spread(side, |sample: &Sample| sample.server_cpu + sample.own_cpu);
        let rate =
            |side| cpu(side).map_or_else(|| "-".to_owned(), |s| format!("{:.0}", raw / s.median.max(0.01)));
        let server = |side| {
            one.spread(side, |sample| sample.server_cpu)
                .map_or_else(|| "-".to_owned(), |s| format!("{:.2}", s.median))
        };
        let all =
            |of: &dyn Fn(Side) -> String| [Side::Holdfast, Side::Applier, Side::Client].map(of).join(", ");
        let memory = one.of(Side::Holdfast).map(|sample| sample.memory_bytes).max().unwrap_or(0);
        table.row(vec![
            one.load.title.to_owned(),
            format!("{:.2}", raw / net),
            all(&rate),
            format!("{:.1}", one.median(Side::Holdfast, |sample| sample.server_cpu) * 1e6 / net),
            all(&server),
            format!("{:.2}", one.median(Side::Holdfast, |sample| sample.own_cpu)),
            format!("{}", memory >> 20),
        ]);
    }
    table
}

fn tuned(measured: &[Measured]) -> Option<Table> {
    let mut table = Table::new(
        "With the settings of a restore",
        "Holdfast again, on a server with what a restore gives it for the log (`crates/restore/src/tuning.rs`: redo by the length of the log, more I/O, no \
         adaptive hash index), the buffer pool left as it is. No other side has these, so this is no comparison.",
        &["load", "s", "server's processor s", "beside the same settings as all: s", "server's processor s"],
    );
    let cell = |one: &Measured, side, of: fn(&Sample) -> f64| {
        let spread = one.spread(side, of);
        spread.map_or_else(String::new, |s| format!("{:.2} ({:.2} - {:.2})", s.median, s.least, s.most))
    };
    let measured: Vec<&Measured> = measured.iter().filter(|one| one.of(Side::Tuned).count() > 0).collect();
    for one in &measured {
        table.row(vec![
            one.load.title.to_owned(),
            cell(one, Side::Tuned, |sample| sample.seconds),
            cell(one, Side::Tuned, |sample| sample.server_cpu),
            cell(one, Side::Holdfast, |sample| sample.seconds),
            cell(one, Side::Holdfast, |sample| sample.server_cpu),
        ]);
    }
    (!measured.is_empty()).then_some(table)
}

fn ways(measured: &[Measured]) -> Option<Table> {
    let mut table = Table::new("Tables that were replayed in order", "", &["load", "table, and why"]);
    let mut any = false;
    for one in measured {
        let lines = one.of(Side::Holdfast).next().map(|sample| sample.in_order.clone()).unwrap_or_default();
        for line in lines {
            any = true;
            table.row(vec![one.load.title.to_owned(), line.replace('|', "\\|")]);
        }
    }
    any.then_some(table)
}

/// The load of a name; what there is, if there is none.
///
/// # Errors
/// A sentence that names all.
pub fn load_named(name: &str) -> Result<Load, String> {
    LOADS.into_iter().find(|load| load.name == name).ok_or_else(|| {
        let names: Vec<&str> = LOADS.iter().map(|load| load.name).collect();
        format!("no load is called {name}; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(side: Side, seconds: f64) -> Sample {
        let (written, memory_bytes) = (250, 100 << 20);
        Sample { side, seconds, server_cpu: 1.0, own_cpu: 0.0, written, memory_bytes, in_order: Vec::new() }
    }

    #[test]
    fn a_load_that_falls_short_says_so() {
        let load = load_named("skewed").unwrap();
        let samples = vec![
            sample(Side::Holdfast, 3.0),
            sample(Side::Applier, 30.0),
            sample(Side::Holdfast, 2.0),
            sample(Side::Client, 500.0),
        ];
        let one = Measured { load, log: (10, 1000, 1 << 20), table_bytes: 1 << 30, samples };
        let text = ratios(std::slice::from_ref(&one)).text();
        assert!(text.contains("| **12.0x** | 12x | yes | **200.0x** | 130x | yes |"), "{text}");
        assert!(tuned(std::slice::from_ref(&one)).is_none(), "nobody asked for it");
        let mut again = one.clone();
        again.samples.push(sample(Side::Tuned, 1.5));
        let text = tuned(&[again]).unwrap().text();
        assert!(text.contains("| 1.50 (1.50 - 1.50) | 1.00 (1.00 - 1.00) |"), "{text}");
        assert!(work(&[one]).text().contains("| 4.00 |"), "four raw rows for each net row");
        let slow = Measured {
            load,
            log: (10, 1000, 1 << 20),
            table_bytes: 1 << 30,
            samples: vec![sample(Side::Holdfast, 3.0), sample(Side::Applier, 30.0)],
        };
        let text = ratios(&[slow]).text();
        assert!(text.contains("| **10.0x** | 12x | **no** | not measured | 130x |  |"), "{text}");
        assert!(load_named("none").unwrap_err().contains("keyless"));
    }
}
