//! What restores have taken, and what the next one will: restores and drills that were proved, by their reports.

use crate::catalogue::Catalogue;
use crate::time::Micros;
use crate::views::{StatusView, time};
use holdfast_format::record::ServerRecord;
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
    /// The user's own queries that did not give what was expected, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_queries: Vec<String>,
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
    /// Seconds that it took to look through the log and to count what the log changes. Reports have no figure for each, so
    /// an estimate takes all of it to go by the log's bytes; yet the count goes by the rows of the tables that the log
    /// changes, and is foretold too short for a short log behind a base that has grown.
    pub look_seconds: f64,
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
    /// What they go by: the parts that make the seconds.
    pub by: Vec<EstimatePart>,
}

/// One part of an estimate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EstimatePart {
    /// `files`, `log`, or `starts and proof`.
    pub what: &'static str,
    /// The bytes that it goes by; it goes by none: `null`.
    pub bytes: Option<u64>,
    /// Seconds of the estimate.
    pub seconds: f64,
}

/// The reports of the server's restores and drills, newest first; those of some tables alone left out.
#[must_use]
pub fn measured(catalogue: &Catalogue, server: &ServerRecord) -> Vec<Measured> {
    catalogue.known(|known| known.measured(server.id).iter().rev().cloned().collect())
}

/// What a report says, if it is of a whole restore.
pub(crate) fn read(json: &Value, at: Micros, kind: &str) -> Option<Measured> {
    // Its figures are of other work: a part of the files, and a log that was read for more than was replayed.
    if crate::list::is_of_a_part(json) {
        return None;
    }
    let number = |pointer: &str| json.pointer(pointer).and_then(Value::as_u64);
    let seconds = |name: &str| json.pointer(&format!("/seconds/{name}")).and_then(Value::as_f64);
    let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let (lay_out, replay, total) = (seconds("lay_out")?, seconds("replay")?, seconds("total")?);
    let other = seconds("recover")? + seconds("restart")? + seconds("prove")?;
    Some(Measured {
        at,
        drill: kind == crate::drill::KIND,
        target: text("/plan/target")?,
        base: text("/plan/base")?,
        proved: json.get("proved")?.as_bool()?,
        failed_queries: failed_queries(json),
        bytes: number("/plan/bytes")?,
        log_bytes: number("/plan/log/size/bytes").unwrap_or(0),
        transactions: number("/plan/log/size/transactions").unwrap_or(0),
        lay_out_seconds: lay_out,
        replay_seconds: replay,
        // What is in no other part.
        look_seconds: (total - lay_out - replay - other).max(0.0),
        other_seconds: other,
        total_seconds: total,
        whole: json.get("went_on_after").is_none_or(Value::is_null)
            && number("/laid_out/blocks_kept").unwrap_or(0) == 0,
    })
}

fn failed_queries(json: &Value) -> Vec<String> {
    let queries = json.get("queries").and_then(Value::as_array).into_iter().flatten();
    let failed = queries.filter(|query| query.get("verdict").is_some_and(|verdict| verdict == "failed"));
    failed.filter_map(|query| query.get("name").and_then(Value::as_str).map(str::to_owned)).collect()
}

/// Work of one kind that was measured: its bytes, and the seconds that it took.
type Sample = (f64, f64);

/// With sizes that differ by less than this, what a byte costs and what is there whatever the size can't be told apart.
const APART: f64 = 1.5;

/// What work of a kind takes: so much whatever its size (connecting, reading definitions, opening files), and so much a byte.
#[derive(Clone, Copy, Debug)]
struct Cost {
    fixed: f64,
    per_byte: f64,
    /// By how much the samples lie below this, and above it: factors.
    least: f64,
    most: f64,
    /// The largest work that was measured; of several, the one that took longest.
    largest: Sample,
}

impl Cost {
    /// The line through the samples that is off by the least part of what they took. `None`: there is no sample.
    fn of(samples: &[Sample]) -> Option<Self> {
        let used: Vec<Sample> =
            samples.iter().copied().filter(|(bytes, s)| *bytes > 0.0 && s.is_finite() && *s > 0.0).collect();
        let sizes = || used.iter().map(|(bytes, _)| *bytes);
        let (smallest, largest) = (sizes().reduce(f64::min)?, sizes().reduce(f64::max)?);
        let line = if largest > smallest * APART { line(&used) } else { None };
        let (fixed, per_byte) = match line {
            Some(line) => line,
            None => (0.0, middle(used.iter().map(|(bytes, seconds)| seconds / bytes))?),
        };
        let off = || used.iter().map(|(bytes, seconds)| seconds / (fixed + per_byte * bytes));
        let (least, most) = (off().reduce(f64::min)?, off().reduce(f64::max)?);
        let largest = used.iter().copied().reduce(|a, b| if b > a { b } else { a })?;
        Some(Self { fixed, per_byte, least: least.min(1.0), most: most.max(1.0), largest })
    }

    /// Least, expected and most seconds for so many bytes. Beyond the largest sample, the line is a guess that noise can
    /// tilt: so the most is no less than if all of that sample had been by the byte; nor is what is expected, if the
    /// samples don't say what a byte costs.
    fn seconds(&self, bytes: u64) -> (f64, f64, f64) {
        if bytes == 0 {
            return (0.0, 0.0, 0.0);
        }
        let line = self.fixed + self.per_byte * bytes as f64;
        let (least, most) = (line * self.least, line * self.most);
        let (measured, took) = self.largest;
        let by_the_byte = took / measured * bytes as f64;
        match (bytes as f64 > measured, self.per_byte > 0.0) {
            (false, _) => (least, line, most),
            (true, true) => (least, line, most.max(by_the_byte)),
            (true, false) => (least, line.max(by_the_byte), most.max(by_the_byte)),
        }
    }
}

/// Least squares of the relative errors; neither part is less than nothing.
fn line(samples: &[Sample]) -> Option<(f64, f64)> {
    let (mut w, mut wx, mut wxx, mut wy, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in samples {
        let weight = 1.0 / (y * y);
        w += weight;
        wx += weight * x;
        wxx += weight * x * x;
        wy += weight * y;
        wxy += weight * x * y;
    }
    let per_byte = (w * wxy - wx * wy) / (w * wxx - wx * wx);
    let fixed = (wy - per_byte * wx) / w;
    match (fixed.is_finite() && per_byte.is_finite(), fixed > 0.0, per_byte > 0.0) {
        (true, true, true) => Some((fixed, per_byte)),
        // The larger ones took no longer: what was measured is all that is known.
        (true, true, false) => Some((middle(samples.iter().map(|(_, seconds)| *seconds))?, 0.0)),
        // All of it is by the byte.
        (true, false, true) => Some((0.0, wxy / wxx)),
        _ => None,
    }
}

/// The middle of some figures.
fn middle(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let at = figures.len() / 2;
    let upper = *figures.get(at)?;
    Some(match figures.len() % 2 {
        1 => upper,
        _ => (figures.get(at.checked_sub(1)?)? + upper) / 2.0,
    })
}

/// How long it takes to lay out `bytes` of files and to replay `log_bytes` of log, as the restores that were `measured`
/// say: what each part takes whatever its size, seconds a byte beside it, and what starts and proof took. `None`: none was
/// measured.
#[must_use]
pub fn estimate(measured: &[Measured], bytes: u64, log_bytes: u64) -> Option<EstimateView> {
    let used: Vec<&Measured> = measured.iter().filter(|m| m.proved && m.whole).take(NEWEST_MAX).collect();
    let cost = |of: &dyn Fn(&Measured) -> Sample| {
        let samples: Vec<Sample> = used.iter().map(|m| of(m)).collect();
        Cost::of(&samples)
    };
    let files = cost(&|m| (m.bytes as f64, m.lay_out_seconds))?;
    let log = cost(&|m| (m.log_bytes as f64, m.replay_seconds + m.look_seconds));
    let others = || used.iter().map(|m| m.other_seconds);
    let other = (others().reduce(f64::min)?, middle(others())?, others().reduce(f64::max)?);
    let leaves_out = (log_bytes > 0 && log.is_none())
        .then(|| format!("the replay of {log_bytes} bytes of log: no restore has measured one yet"));
    let log = log.map_or((0.0, 0.0, 0.0), |log| log.seconds(log_bytes));
    let files = files.seconds(bytes);
    let wider = if used.len() < FEW { 2.0 } else { 1.0 };
    Some(EstimateView {
        seconds: files.1 + log.1 + other.1,
        seconds_min: (files.0 + log.0 + other.0) / wider,
        seconds_max: (files.2 + log.2 + other.2) * wider,
        restores: used.len() as u64,
        leaves_out,
        by: vec![
            EstimatePart { what: "files", bytes: Some(bytes), seconds: files.1 },
            EstimatePart { what: "log", bytes: Some(log_bytes), seconds: log.1 },
            EstimatePart { what: "starts and proof", bytes: None, seconds: other.1 },
        ],
    })
}

/// How long a restore to the last moment would take now, and how long one right behind a new base: by the bytes of the
/// last backup and those of the log behind it. `None`: there is no backup, or no restore was measured.
#[must_use]
pub fn to_the_end(
    measured: &[Measured],
    status: &StatusView,
) -> (Option<EstimateView>, Option<EstimateView>) {
    let takes = |log_bytes| {
        let last = status.last_backup.as_ref()?;
        estimate(measured, last.data_bytes, log_bytes)
    };
    (takes(status.replay_bytes), takes(0))
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
            failed_queries: Vec::new(),
            bytes: 1000,
            log_bytes,
            transactions: 0,
            lay_out_seconds: lay_out,
            replay_seconds: replay,
            look_seconds: 0.0,
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
    fn an_estimate_of_equal_work_is_the_middle_of_the_measured_rates_and_its_range_theirs() {
        let three = [one(1.0, 100, 2.0, 5.0), one(2.0, 100, 1.0, 6.0), one(4.0, 100, 4.0, 7.0)];
        let made = estimate(&three, 10_000, 50).unwrap();
        // Files: 1, 2 and 4 ms a byte. Log: 10, 20 and 40 ms a byte. The rest: 5, 6 and 7 s.
        assert!((made.seconds - (20.0 + 1.0 + 6.0)).abs() < 1e-9, "{made:?}");
        assert!((made.seconds_min - (10.0 + 0.5 + 5.0)).abs() < 1e-9, "{made:?}");
        assert!((made.seconds_max - (40.0 + 2.0 + 7.0)).abs() < 1e-9, "{made:?}");
        assert_eq!((made.restores, made.leaves_out), (3, None));
        // The parts are the whole.
        let parts: Vec<_> = made.by.iter().map(|part| (part.what, part.bytes, part.seconds)).collect();
        let expected =
            [("files", Some(10_000), 20.0), ("log", Some(50), 1.0), ("starts and proof", None, 6.0)];
        assert_eq!(parts, expected);
    }

    /// A replay has its fixed part, and the look before it takes time as well: with rates alone, what short logs took was
    /// foretold of long ones, ten times too much.
    #[test]
    fn after_three_restores_the_fourth_is_foretold_within_a_quarter_whatever_its_size() {
        let mut random = 0x5eed_u64;
        let mut noise = || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            1.0 + ((random >> 40) % 2001) as f64 / 10_000.0 - 0.1
        };
        for case in 0..2000 {
            let (fixed, rate, look) = (0.2 + (case % 7) as f64 * 0.3, 2e-8, 5e-9);
            let mut made = |log_bytes: u64| {
                let replay = (fixed + rate * log_bytes as f64) * noise();
                let look = look * log_bytes as f64 * noise();
                let (lay_out, other) = (3.0 * noise(), 4.0 * noise());
                let total = lay_out + replay + look + other;
                let whole = one(lay_out, log_bytes, replay, other);
                Measured { look_seconds: look, total_seconds: total, ..whole }
            };
            let three = [made(3_000_000), made(60_000_000), made(20_000_000)];
            for log_bytes in [1_000_000, 40_000_000, 180_000_000] {
                let (told, took) =
                    (estimate(&three, 1000, log_bytes).unwrap().seconds, made(log_bytes).total_seconds);
                assert!(
                    (told / took - 1.0).abs() < 0.25,
                    "case {case}: {told} and not {took} for {log_bytes}"
                );
            }
        }
    }

    #[test]
    fn work_that_took_less_the_more_it_was_is_not_foretold_below_nothing() {
        let odd = [one(1.0, 100, 4.0, 1.0), one(1.0, 1000, 2.0, 1.0), one(1.0, 3000, 2.5, 1.0)];
        // No less than the middle; and behind the largest, 2.5 s for each 3000 bytes.
        for (log_bytes, log) in [(1, 2.5), (3000, 2.5), (30_000, 25.0), (3_000_000, 2500.0)] {
            let made = estimate(&odd, 1000, log_bytes).unwrap();
            assert!((made.seconds - (1.0 + log + 1.0)).abs() < 1e-6, "{made:?}");
        }
        let steep = [one(1.0, 100, 1.0, 1.0), one(1.0, 200, 4.0, 1.0)];
        let made = estimate(&steep, 1000, 10).unwrap();
        assert!(made.seconds > 2.0 && made.seconds < 2.3, "{made:?}");
    }

    /// Two short drills say next to nothing about what a byte costs, whichever way their noise tilts.
    #[test]
    fn a_log_far_longer_than_any_that_was_measured_is_not_foretold_to_take_as_long_as_those() {
        let (small, large, log_bytes) = (1_000_000_u64, 20_000_000_u64, 50_u64 << 30);
        for (first, second) in [(10.0, 9.5), (10.0, 10.0), (10.0, 10.1)] {
            let by_the_byte = second / large as f64 * log_bytes as f64;
            let drills = [one(1.0, small, first, 1.0), one(1.0, large, second, 1.0)];
            let made = estimate(&drills, 1000, log_bytes).unwrap();
            assert!(made.seconds_max >= by_the_byte, "{made:?}");
            assert!(made.seconds >= by_the_byte || second > first, "{made:?}");
            let near = estimate(&drills, 1000, large).unwrap();
            assert!(near.seconds < 13.0, "{near:?}");
        }
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
