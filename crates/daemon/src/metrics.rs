//! `/metrics`, in Prometheus' text format: ages and moments as of the board, counts and latencies since the start.

use crate::daemon::Daemon;
use crate::jobs::Standing;
use hdrhistogram::Histogram;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::time::{Micros, now};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Quantiles that are told of a latency.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// Three digits, up to a day in microseconds.
const DAY_US: u64 = 86_400_000_000;

/// What is counted since the start.
#[derive(Debug)]
pub struct Counters {
    /// Of alerts.
    pub alerts: crate::alerts::Counts,
    failures: Mutex<BTreeMap<String, u64>>,
    requests: Mutex<Histogram<u64>>,
    backups: Mutex<Histogram<u64>>,
}

impl Counters {
    /// Nothing is counted yet.
    ///
    /// # Errors
    /// `Failed` when there is no memory for it.
    pub fn new() -> Result<Self> {
        let histogram = || {
            let made = Histogram::new_with_bounds(1, DAY_US, 3);
            made.map(Mutex::new).map_err(|error| Error::failed(format!("No histogram can be made: {error}.")))
        };
        Ok(Self {
            alerts: Default::default(),
            failures: Mutex::default(),
            requests: histogram()?,
            backups: histogram()?,
        })
    }

    /// A job failed with this code.
    pub fn job_failed(&self, cause: &str) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(cause.to_owned()).or_default() +=
            1;
    }

    /// A request was answered in this time.
    pub fn request_took(&self, time: Duration) {
        record(&self.requests, u64::try_from(time.as_micros()).unwrap_or(DAY_US));
    }

    /// A backup was taken in this time.
    pub fn backup_took(&self, micros: Micros) {
        record(&self.backups, micros.max(1) as u64);
    }
}

fn record(histogram: &Mutex<Histogram<u64>>, micros: u64) {
    histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros.max(1));
}

/// The text.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String does not fail.
        let _ = writeln!(self.0, "# HELP holdfast_{name} {help}\n# TYPE holdfast_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "holdfast_{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// One gauge a server, where it is known.
    fn gauge(&mut self, name: &str, help: &str, values: &[(&str, Option<f64>)]) {
        self.family(name, "gauge", help);
        for (server, value) in values {
            if let Some(value) = value {
                self.sample(name, &[("server", server)], *value);
            }
        }
    }

    fn summary(&mut self, name: &str, help: &str, histogram: &Mutex<Histogram<u64>>) {
        let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
        self.family(name, "summary", help);
        for quantile in QUANTILES {
            let value = histogram.value_at_quantile(quantile) as f64 / 1e6;
            self.sample(name, &[("quantile", &quantile.to_string())], value);
        }
        let sum = histogram.mean() * histogram.len() as f64 / 1e6;
        self.sample(&format!("{name}_sum"), &[], sum);
        self.sample(&format!("{name}_count"), &[], histogram.len() as f64);
    }
}

/// The whole page.
#[must_use]
pub fn page(daemon: &Daemon) -> String {
    let board = daemon.look();
    let now = now();
    let seconds = |at: Micros| at as f64 / 1e6;
    let mut page = Page(String::new());
    page.family("build_info", "gauge", "The program; always 1.");
    page.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);

    let last = |of: &dyn Fn(&holdfast_appliance::views::BackupView) -> f64| -> Vec<(&str, Option<f64>)> {
        let servers = board.servers.iter();
        servers.map(|s| (s.status.server.as_str(), s.status.last_backup.as_ref().map(of))).collect()
    };
    let typed = |page: &mut Page, name: &str, help: &str, values: Vec<(&str, Option<f64>)>| {
        page.family(name, "gauge", help);
        for (server, value) in values {
            if let Some(value) = value {
                page.sample(name, &[("server", server), ("type", "base")], value);
            }
        }
    };
    typed(
        &mut page,
        "last_success_timestamp_seconds",
        "When the last base was acknowledged.",
        last(&|b| seconds(b.completed)),
    );
    typed(
        &mut page,
        "last_success_age_seconds",
        "Age of the last base.",
        last(&|b| seconds(now.saturating_sub(b.completed))),
    );
    page.gauge(
        "backup_duration_seconds",
        "How long the last base took.",
        &last(&|b| seconds(b.completed.saturating_sub(b.started))),
    );
    page.family("backup_size_bytes", "gauge", "The last base: bytes of its files, bytes that it added.");
    for server in &board.servers {
        if let Some(backup) = &server.status.last_backup {
            let name = server.status.server.as_str();
            for (kind, bytes) in [("data", backup.data_bytes), ("stored", backup.stored_bytes)] {
                page.sample("backup_size_bytes", &[("server", name), ("kind", kind)], bytes as f64);
            }
        }
    }
    let each = |of: &dyn Fn(&crate::board::ServerBoard) -> Option<f64>| -> Vec<(&str, Option<f64>)> {
        board.servers.iter().map(|s| (s.status.server.as_str(), of(s))).collect()
    };
    let span = |s: &crate::board::ServerBoard| s.status.spans.last().cloned();
    page.gauge(
        "recoverable_from_timestamp_seconds",
        "First moment of the newest unbroken restorable stretch.",
        &each(&|s| span(s).map(|span| seconds(span.from))),
    );
    page.gauge(
        "recoverable_until_timestamp_seconds",
        "Last transaction that can be restored.",
        &each(&|s| span(s).map(|span| seconds(span.until))),
    );
    page.gauge(
        "stream_lag_seconds",
        "Seconds of the source's history that would be missing if it died now.",
        &each(&|s| s.stream.lag_seconds),
    );
    page.gauge(
        "binlog_gap_count",
        "Holes in the log that the repository knows of.",
        &each(&|s| Some(s.status.gaps.len() as f64)),
    );
    page.gauge(
        "protected",
        "1 if every promise is kept, 0.5 if something wants a look, 0 if not.",
        &each(&|s| {
            Some(match s.level {
                crate::board::Level::Green => 1.0,
                crate::board::Level::Amber => 0.5,
                crate::board::Level::Red => 0.0,
            })
        }),
    );
    page.gauge(
        "next_base_timestamp_seconds",
        "When the next base is due.",
        &each(&|s| s.next_base.at.map(seconds)),
    );
    drills(&mut page, &board);
    repository(&mut page, daemon, &board);
    page.family("job_failures_total", "counter", "Jobs that failed since the start, by the error's code.");
    for (cause, count) in daemon.counters.failures.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        page.sample("job_failures_total", &[("cause", cause)], *count as f64);
    }
    page.family("jobs", "gauge", "Jobs that wait or run.");
    for (word, standing) in [("queued", Standing::Queued), ("running", Standing::Running)] {
        let count = daemon.state.read(|c| c.jobs.iter().filter(|j| j.standing == standing).count());
        page.sample("jobs", &[("standing", word)], count as f64);
    }
    page.summary("backup_seconds", "How long bases took since the start.", &daemon.counters.backups);
    page.summary("http_request_seconds", "How long answers of the API took.", &daemon.counters.requests);
    alerts(&mut page, daemon);
    page.family("approvals_waiting", "gauge", "Requests that wait for a second person.");
    let waiting = |r: &&crate::approvals::Request| r.decision == crate::approvals::Decision::Waiting;
    let waiting = daemon.state.read(|c| c.approvals.iter().filter(waiting).count());
    page.sample("approvals_waiting", &[], waiting as f64);
    let (ok, last_good) = daemon.reloads.last();
    page.family(
        "config_last_reload_successful",
        "gauge",
        "1 if the configuration could be used when it was last read.",
    );
    page.sample("config_last_reload_successful", &[], f64::from(u8::from(ok)));
    page.family("config_last_reload_success_timestamp_seconds", "gauge", "When it last could be.");
    page.sample("config_last_reload_success_timestamp_seconds", &[], seconds(last_good));
    page.family("scheduler_alive_timestamp_seconds", "gauge", "When the scheduler last asked its questions.");
    page.sample(
        "scheduler_alive_timestamp_seconds",
        &[],
        seconds(daemon.scheduler_alive.load(Ordering::Relaxed)),
    );
    page.0
}

fn alerts(page: &mut Page, daemon: &Daemon) {
    page.family("alerts", "gauge", "Alerts that were told and are not over.");
    for (level, count) in crate::alerts::by_level(daemon) {
        page.sample("alerts", &[("level", level)], count as f64);
    }
    page.family("alert_outbox", "gauge", "Messages about alerts that nobody has taken yet.");
    page.sample("alert_outbox", &[], daemon.state.read(|c| c.outbox.len()) as f64);
    let counts = &daemon.counters.alerts;
    page.family("alert_deliveries_total", "counter", "Tries to deliver messages about alerts.");
    for (outcome, count) in
        [("delivered", &counts.delivered), ("failed", &counts.failed), ("dropped", &counts.dropped)]
    {
        page.sample("alert_deliveries_total", &[("outcome", outcome)], count.load(Ordering::Relaxed) as f64);
    }
    page.family(
        "ping_last_success_timestamp_seconds",
        "gauge",
        "When the dead-man switch was last told that all is well.",
    );
    let pinged = counts.pinged.load(Ordering::Relaxed);
    if pinged > 0 {
        page.sample("ping_last_success_timestamp_seconds", &[], pinged as f64 / 1e6);
    }
}

fn drills(page: &mut Page, board: &crate::board::Board) {
    let each = |of: &dyn Fn(&crate::board::ServerBoard) -> Option<f64>| -> Vec<(String, Option<f64>)> {
        board.servers.iter().map(|s| (s.status.server.clone(), of(s))).collect()
    };
    let mut gauge = |name: &str, help: &str, values: Vec<(String, Option<f64>)>| {
        let values: Vec<(&str, Option<f64>)> = values.iter().map(|(s, v)| (s.as_str(), *v)).collect();
        page.gauge(name, help, &values);
    };
    gauge(
        "drill_last_timestamp_seconds",
        "When the last drill came to a verdict.",
        each(&|s| s.drill.last.as_ref().map(|d| d.at as f64 / 1e6)),
    );
    gauge(
        "drill_proved",
        "1 if the last drill was proved, 0 if it was not.",
        each(&|s| s.drill.last.as_ref().map(|d| f64::from(u8::from(d.proved)))),
    );
    gauge(
        "drill_duration_seconds",
        "How long the last drill took.",
        each(&|s| s.drill.last.as_ref().map(|d| d.total_seconds)),
    );
    gauge(
        "drill_due_timestamp_seconds",
        "When the next drill is due.",
        each(&|s| s.drill.due.map(|at| at as f64 / 1e6)),
    );
    gauge(
        "trust",
        "How much there is to rely on, 0 to 100.",
        each(&|s| s.trust.as_ref().map(|t| f64::from(t.figure))),
    );
    gauge(
        "restore_estimate_seconds",
        "How long a restore to the last moment would take, by the restores that were measured.",
        each(&|s| s.estimate.as_ref().map(|e| e.seconds)),
    );
    gauge(
        "restore_estimate_max_seconds",
        "The same by the slowest of them in each part.",
        each(&|s| s.estimate.as_ref().map(|e| e.seconds_max)),
    );
    gauge("rto_seconds", "How long a restore may take, by the policy.", each(&|s| s.rto_seconds));
}

fn repository(page: &mut Page, daemon: &Daemon, board: &crate::board::Board) {
    let mut maybe = |name: &str, help: &str, value: Option<f64>| {
        page.family(name, "gauge", help);
        value.into_iter().for_each(|value| page.sample(name, &[], value));
    };
    let repository = &board.repository;
    let seconds = |at: Micros| at as f64 / 1e6;
    maybe(
        "repo_free_bytes",
        "Bytes free on the repository's file system.",
        Some(repository.free_bytes as f64),
    );
    maybe("repo_total_bytes", "Bytes of that file system.", Some(repository.total_bytes as f64));
    maybe("repo_stored_bytes", "Bytes that its backups added.", Some(repository.stored_bytes as f64));
    let damaged = f64::from(u8::from(repository.damage.is_some()));
    maybe("repo_damaged", "1 if its manifest is damaged.", Some(damaged));
    maybe("fsck_last_timestamp_seconds", "When the last whole check ended.", repository.checked.map(seconds));
    maybe(
        "fsck_clean",
        "1 if it found nothing wrong.",
        repository.clean.map(|clean| f64::from(u8::from(clean))),
    );
    maybe("fsck_due_timestamp_seconds", "When the next one is due.", repository.check_due.map(seconds));
    maybe(
        "canary_last_timestamp_seconds",
        "When one block of 32 was last read and compared with its id.",
        repository.canary.map(seconds),
    );
    maybe(
        "canary_clean",
        "1 if that found nothing wrong.",
        repository.canary_clean.map(|clean| f64::from(u8::from(clean))),
    );
    maybe("prune_last_timestamp_seconds", "When the last prune ended.", repository.pruned.map(seconds));
    maybe("prune_last_freed_bytes", "Bytes that it gave back.", repository.pruned_bytes.map(|b| b as f64));
    maybe("audit_entries_total", "Entries of the audit log.", Some(daemon.audit.count() as f64));
    maybe("board_timestamp_seconds", "When these figures were computed.", Some(seconds(board.at)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_quantiles_told() {
        let mut page = Page(String::new());
        page.gauge("x", "help", &[("a\"b\\c\nd", Some(1.5)), ("unknown", None)]);
        assert!(page.0.contains("holdfast_x{server=\"a\\\"b\\\\c\\nd\"} 1.5\n"), "{}", page.0);
        assert!(!page.0.contains("unknown"));
        let counters = Counters::new().unwrap();
        (1..=1000).for_each(|ms| counters.request_took(Duration::from_millis(ms)));
        page.summary("http_request_seconds", "help", &counters.requests);
        let line = page.0.lines().find(|l| l.contains("quantile=\"0.99\"")).unwrap();
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((0.98..1.0).contains(&value), "{line}");
    }
}
