//! What restores have taken, and what the next one will: restores and drills that were proved, by their reports.

use crate::catalogue::Catalogue;
use crate::time::Micros;
use crate::views::time;
use holdfast_format::record::{Record, ServerRecord};
use serde::Serialize;
use serde_json::Value;

/// The newest restores that an estimate is made from.
const NEWEST_MAX: usize = 10;
/// With fewer restores than this, the range is doubled on both sides: they can't tell how much they differ.
const FEW: usize = 3;

/// A restore or a drill that was kept with its backup.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// When it was kept.
    #[serde(serialize_with = "time")]
    pub at: Micros,
    /// Whether it was a drill.
    pub drill: bool,
    /// The moment that it led to.
    pub target: String,
    /// The backup that it began with.
    pub base: String,
    /// Whether every check that was made ended well.
    pub proved: bool,
    /// Bytes of the backup's files.
    pub bytes: u64,
    /// Bytes of the log that was read, and its transactions.
    pub log_bytes: u64,
    /// Transactions of it.
    pub transactions: u64,
    /// Seconds that the files took.
    pub lay_out_seconds: f64,
    /// Seconds that the replay took.
    pub replay_seconds: f64,
    /// Seconds that starts, recovery and proof took.
    pub other_seconds: f64,
    /// Seconds in all.
    pub total_seconds: f64,
    /// It did all of its work itself: it went on from nothing that an earlier one had left.
    pub whole: bool,
}

/// How long a restore will take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EstimateView {
    /// Seconds: the middle of what the measured restores would have needed for this work.
    pub seconds: f64,
    /// By the fastest of them in each part; half of it while there are fewer than three.
    pub seconds_min: f64,
    /// By the slowest of them in each part; twice that while there are fewer than three.
    pub seconds_max: f64,
    /// Restores that were measured.
    pub restores: u64,
    /// What the figures leave out, if anything.
    pub leaves_out: Option<String>,
}

/// The reports of the server's restores and drills, newest first; those of some tables alone left out.
#[must_use]
pub fn measured(catalogue: &Catalogue, server: &ServerRecord) -> Vec<Measured> {
    let records = catalogue.repository.records();
    let reports = records.iter().rev().filter_map(|stamped| match &stamped.record {
        Record::Report(report) => Some(report),
        _ => None,
    });
    reports
        .filter_map(|report| {
            let json: Value = serde_json::from_slice(&report.json).ok()?;
            let of_server = json.get("server")?.as_str()? == server.name;
            of_server.then(|| read(&json, report.at_us, &report.kind)).flatten()
        })
        .collect()
}

fn read(json: &Value, at: Micros, kind: &str) -> Option<Measured> {
    // Its figures are of other work: a part of the files, and a log that was read for more than was replayed.
    if crate::list::is_of_a_part(json) {
        return None;
    }
    let number = |pointer: &str| json.pointer(pointer).and_then(Value::as_u64);
    let seconds = |name: &str| json.pointer(&format!("/seconds/{name}")).and_then(Value::as_f64);
    let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Some(Measured {
        at,
        drill: kind == crate::drill::KIND,
        target: text("/plan/target")?,
        base: text("/plan/base")?,
        proved: json.get("proved")?.as_bool()?,
        bytes: number("/plan/bytes")?,
        log_bytes: number("/plan/log/size/bytes").unwrap_or(0),
        transactions: number("/plan/log/size/transactions").unwrap_or(0),
        lay_out_seconds: seconds("lay_out")?,
        replay_seconds: seconds("replay")?,
        other_seconds: seconds("recover")? + seconds("restart")? + seconds("prove")?,
        total_seconds: seconds("total")?,
        whole: json.get("went_on_after").is_none_or(Value::is_null)
            && number("/laid_out/blocks_kept").unwrap_or(0) == 0,
    })
}

/// The least, the middle and the most of some figures.
fn spread(figures: impl Iterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut figures: Vec<f64> = figures.filter(|f| f.is_finite() && *f >= 0.0).collect();
    figures.sort_by(f64::total_cmp);
    Some((*figures.first()?, *figures.get(figures.len() / 2)?, *figures.last()?))
}

/// How long it takes to lay out `bytes` of files and to replay `log_bytes` of log, as the restores that were `measured`
/// say: seconds a byte of each part, and what starts and proof took. `None`: none was measured.
#[must_use]
pub fn estimate(measured: &[Measured], bytes: u64, log_bytes: u64) -> Option<EstimateView> {
    let used: Vec<&Measured> = measured.iter().filter(|m| m.proved && m.whole).take(NEWEST_MAX).collect();
    let per_byte = |of: &dyn Fn(&Measured) -> (f64, u64)| {
        spread(used.iter().map(|m| of(m)).filter(|(_, bytes)| *bytes > 0).map(|(s, bytes)| s / bytes as f64))
    };
    let files = per_byte(&|m| (m.lay_out_seconds, m.bytes))?;
    let other = spread(used.iter().map(|m| m.other_seconds))?;
    let replay = per_byte(&|m| (m.replay_seconds, m.log_bytes));
    let leaves_out = (log_bytes > 0 && replay.is_none())
        .then(|| format!("the replay of {log_bytes} bytes of log: no restore has measured one yet"));
    let replay = replay.unwrap_or((0.0, 0.0, 0.0));
    let of = |part: fn((f64, f64, f64)) -> f64| {
        part(files) * bytes as f64 + part(replay) * log_bytes as f64 + part(other)
    };
    let wider = if used.len() < FEW { 2.0 } else { 1.0 };
    Some(EstimateView {
        seconds: of(|s| s.1),
        seconds_min: of(|s| s.0) / wider,
        seconds_max: of(|s| s.2) * wider,
        restores: used.len() as u64,
        leaves_out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(lay_out: f64, log_bytes: u64, replay: f64, other: f64) -> Measured {
        Measured {
            at: 0,
            drill: true,
            target: "latest".into(),
            base: "b".into(),
            proved: true,
            bytes: 1000,
            log_bytes,
            transactions: 0,
            lay_out_seconds: lay_out,
            replay_seconds: replay,
            other_seconds: other,
            total_seconds: lay_out + replay + other,
            whole: true,
        }
    }

    #[test]
    fn a_restore_of_some_tables_measures_nothing() {
        let mut json = serde_json::json!({
            "plan": {"target": "latest", "base": "b", "bytes": 7, "part": null}, "proved": true,
            "seconds": {"lay_out": 1.0, "replay": 1.0, "recover": 1.0, "restart": 1.0, "prove": 1.0, "total": 5.0},
        });
        assert!(read(&json, 0, "restore").is_some());
        json["plan"]["part"] = serde_json::json!({"wanted": "table shop.t"});
        assert!(read(&json, 0, "restore").is_none());
    }

    #[test]
    fn an_estimate_is_bytes_over_measured_rates_and_its_range_is_that_of_the_restores() {
        let three = [one(1.0, 100, 2.0, 5.0), one(2.0, 100, 1.0, 6.0), one(4.0, 200, 8.0, 7.0)];
        let made = estimate(&three, 10_000, 50).unwrap();
        // Files: 1, 2 and 4 ms a byte. Log: 10, 20 and 40 ms a byte. The rest: 5, 6 and 7 s.
        assert!((made.seconds - (20.0 + 1.0 + 6.0)).abs() < 1e-9, "{made:?}");
        assert!((made.seconds_min - (10.0 + 0.5 + 5.0)).abs() < 1e-9, "{made:?}");
        assert!((made.seconds_max - (40.0 + 2.0 + 7.0)).abs() < 1e-9, "{made:?}");
        assert_eq!((made.restores, made.leaves_out), (3, None));
    }

    #[test]
    fn one_restore_gives_a_wide_range_and_says_what_it_did_not_measure() {
        let made = estimate(&[one(1.0, 0, 0.0, 3.0)], 2000, 77).unwrap();
        assert!((made.seconds_min - 2.5).abs() < 1e-9 && (made.seconds_max - 10.0).abs() < 1e-9, "{made:?}");
        assert!(made.leaves_out.unwrap().contains("77 bytes of log"));
    }

    #[test]
    fn what_was_not_proved_or_not_whole_measures_nothing() {
        assert_eq!(estimate(&[], 1, 1), None);
        let failed = Measured { proved: false, ..one(1.0, 1, 1.0, 1.0) };
        let resumed = Measured { whole: false, ..one(1.0, 1, 1.0, 1.0) };
        assert_eq!(estimate(&[failed, resumed], 1, 1), None);
    }
}
