//! `status`, `backup`, `jobs`, `check` when a daemon is there to ask.

use super::{DONE, DONE_WITH_WARNINGS, Stop};
use crate::client::{Client, code, encoded};
use crate::output::{Output, duration, size, table};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::error::{Code, Error, Result};
use holdfast_appliance::own::Own;
use holdfast_appliance::progress::{Reading, Watcher};
use holdfast_appliance::time::{now, parse_time};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;

/// How often a running job is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

pub(super) fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("-")
}

pub(super) fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

pub(super) fn rows<'v>(value: &'v Value, path: &str) -> &'v [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `3m05s ago`, or `in 2h14m`.
pub(super) fn when(value: &Value, path: &str) -> String {
    match value.pointer(path).and_then(Value::as_str).and_then(|t| parse_time(t).ok()) {
        None => "-".to_owned(),
        Some(at) if at > now() => format!("in {}", duration(at - now())),
        Some(at) => format!("{} ago", duration(now() - at)),
    }
}

pub(super) fn status(client: &Client, output: Output, name: Option<&str>) -> std::result::Result<u8, Stop> {
    let mut status = client.get("/status")?;
    if let (Some(name), Some(servers)) = (name, status.get_mut("servers").and_then(Value::as_array_mut)) {
        servers.retain(|server| text(server, "/server") == name);
        if servers.is_empty() {
            let error = Error::usage(format!("The daemon knows no server called '{name}'."));
            return Err(error.with_next("see which there are: holdfast status").into());
        }
    }
    output.answer(&status, |out| {
        show_status(out, &status)?;
        let one = name.and_then(|_| status.pointer("/servers/0/trust"));
        one.map_or(Ok(()), |trust| show_trust(out, trust))
    })?;
    let fine = rows(&status, "/servers").iter().all(|s| text(s, "/level") == "green");
    Ok(if fine { DONE } else { DONE_WITH_WARNINGS })
}

/// The figure, and what it is the sum of.
fn show_trust(out: &mut dyn Write, trust: &Value) -> io::Result<()> {
    writeln!(out, "TRUST {} of 100", number(trust, "/figure"))?;
    for part in rows(trust, "/parts") {
        let points = |path: &str| part.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
        let (name, says) = (text(part, "/name"), text(part, "/says"));
        writeln!(out, " {:>5.1} of {:>2.0}  {name:<13}  {says}", points("/points"), points("/of"))?;
    }
    match trust.get("limited").and_then(Value::as_str) {
        Some(why) => writeln!(out, " {why}"),
        None => Ok(()),
    }
}

fn show_status(out: &mut dyn Write, status: &Value) -> io::Result<()> {
    let servers = rows(status, "/servers");
    if servers.is_empty() {
        return writeln!(out, "No server is protected yet: holdfast server add NAME --host HOST --user USER");
    }
    let header = [
        "SERVER",
        "ENGINE",
        "STATE",
        "LOG",
        "LAG",
        "LAST BACKUP",
        "NEXT",
        "PROOF",
        "DRILL",
        "RESTORE",
        "TRUST",
    ];
    let cells = |s: &Value| {
        let lag = s.pointer("/stream/lag_seconds").and_then(Value::as_f64);
        vec![
            text(s, "/server").to_owned(),
            text(s, "/engine").to_owned(),
            text(s, "/level").to_owned(),
            text(s, "/stream/state").to_owned(),
            lag.map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1} s")),
            when(s, "/last_backup/completed"),
            when(s, "/next_base/at"),
            text(s, "/last_backup/proof").to_owned(),
            drill(s),
            restore_takes(s),
            s.pointer("/trust/figure")
                .and_then(Value::as_u64)
                .map_or_else(|| "-".to_owned(), |f| f.to_string()),
        ]
    };
    table(out, &header, &servers.iter().map(cells).collect::<Vec<_>>())?;
    for server in servers {
        writeln!(out, " {}: {}", text(server, "/server"), text(server, "/headline"))?;
        if server.get("origin").is_some_and(|origin| !origin.is_null()) {
            let from = text(server, "/origin/server");
            // None where it was restored from another repository.
            let moment = server.pointer("/origin/moment").and_then(Value::as_str);
            let moment = moment.map(|moment| format!(" as it was at {moment}")).unwrap_or_default();
            writeln!(out, "   restored from '{from}'{moment}")?;
        }
        for worry in rows(server, "/worries") {
            writeln!(out, "   {}", worry.as_str().unwrap_or_default())?;
        }
    }
    let repository = |path: &str| size(number(status, &format!("/repository/{path}")));
    writeln!(
        out,
        "REPOSITORY {}: {} free of {}, {} stored",
        text(status, "/repository/place"),
        repository("free_bytes"),
        repository("total_bytes"),
        repository("stored_bytes")
    )
}

/// What the last drill has shown: `2h14m ago ok`.
fn drill(server: &Value) -> String {
    let verdict = match server.pointer("/drill/last/proved").and_then(Value::as_bool) {
        None => return "-".to_owned(),
        Some(true) => "ok",
        Some(false) => "FAILED",
    };
    format!("{} {verdict}", when(server, "/drill/last/at"))
}

/// How long a restore to the last moment would take: `6m10s..14m00s`; where the policy says how long it may, `… of 30m00s`,
/// with a `!` when it would take longer.
fn restore_takes(server: &Value) -> String {
    let seconds = |path: &str| server.pointer(path).and_then(Value::as_f64);
    match (seconds("/estimate/seconds_min"), seconds("/estimate/seconds_max")) {
        (Some(least), Some(most)) => {
            let range = format!("{}..{}", duration((least * 1e6) as i64), duration((most * 1e6) as i64));
            match (seconds("/rto_seconds"), seconds("/estimate/seconds")) {
                (Some(rto), Some(expected)) => {
                    let over = if expected > rto { "!" } else { "" };
                    format!("{range} of {}{over}", duration((rto * 1e6) as i64))
                }
                _ => range,
            }
        }
        _ => "-".to_owned(),
    }
}

pub(super) fn backup(
    client: &Client,
    output: Output,
    name: &str,
    note: &str,
    own: &Own,
    quiet: bool,
) -> std::result::Result<u8, Stop> {
    let path = format!("/servers/{}/backups", encoded(name));
    let mut wish = json!(own);
    if let Some(wish) = wish.as_object_mut() {
        wish.insert("note".to_owned(), note.into());
    }
    let job = client.ask("POST", &path, Some(&wish))?;
    let view = wait(client, number(&job, "/id"), quiet)?;
    output.answer(&view, |out| {
        writeln!(
            out,
            "Backup {} of '{}': {}, {} stored.",
            text(&view, "/id"),
            text(&view, "/server"),
            size(number(&view, "/data_bytes")),
            size(number(&view, "/stored_bytes"))
        )?;
        rows(&view, "/warnings")
            .iter()
            .try_for_each(|w| writeln!(out, "warning: {}", w.as_str().unwrap_or_default()))
    })?;
    Ok(if rows(&view, "/warnings").is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

/// Follows a job to its end and gives its result. A signal leaves it to the daemon.
pub(super) fn wait(client: &Client, id: u64, quiet: bool) -> Result<Value> {
    let meter = Meter::new(stop_flag()?, quiet);
    let path = format!("/jobs/{id}");
    loop {
        let job = client.get(&path)?;
        match text(&job, "/standing") {
            "done" => {
                meter.finish();
                return Ok(job.get("result").cloned().unwrap_or(Value::Null));
            }
            "failed" | "cancelled" => {
                meter.finish();
                let error = Error::new(code(text(&job, "/failure/code")), text(&job, "/failure/message"));
                return Err(match job.pointer("/failure/next").and_then(Value::as_str) {
                    Some(next) => error.with_next(next),
                    None => error,
                });
            }
            _ => {}
        }
        if meter.cancelled() {
            meter.finish();
            return Err(Error::new(Code::Interrupted, format!("The daemon goes on with the job {id}."))
                .with_next(format!("see holdfast jobs {id}, or stop it: holdfast jobs {id} --cancel")));
        }
        if job.pointer("/progress/phase").is_some() {
            meter.reading(Reading {
                phase: phase(text(&job, "/progress/phase")),
                done: number(&job, "/progress/done"),
                total: job.pointer("/progress/total").and_then(Value::as_u64),
                bytes: job.pointer("/progress/bytes").and_then(Value::as_bool).unwrap_or(false),
                limit: None,
            });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A phase's name as the meter takes it; one that is not known here is shown as `working`.
fn phase(name: &str) -> &'static str {
    const KNOWN: [&str; 12] = [
        "copy", "pages", "redo", "files", "archive", "lay out", "recover", "inspect", "replay", "restart",
        "prove", "connect",
    ];
    KNOWN.into_iter().find(|known| *known == name).unwrap_or("working")
}

pub(super) fn jobs(
    client: &Client,
    output: Output,
    id: Option<u64>,
    cancel: bool,
) -> std::result::Result<u8, Stop> {
    let Some(id) = id else {
        let answer = client.get("/jobs")?;
        output.answer(&answer, |out| show_jobs(out, rows(&answer, "/jobs")))?;
        return Ok(DONE);
    };
    let job = client.ask(if cancel { "DELETE" } else { "GET" }, &format!("/jobs/{id}"), None)?;
    output.answer(&job, |out| {
        show_jobs(out, std::slice::from_ref(&job))?;
        for note in rows(&job, "/progress/notes") {
            writeln!(out, " {}", note.as_str().unwrap_or_default())?;
        }
        match job.pointer("/failure/message").and_then(Value::as_str) {
            Some(why) => writeln!(out, " {why}"),
            None => Ok(()),
        }
    })?;
    Ok(DONE)
}

fn show_jobs(out: &mut dyn Write, jobs: &[Value]) -> io::Result<()> {
    if jobs.is_empty() {
        return writeln!(out, "There was no job yet.");
    }
    let cells = |job: &Value| {
        let begun = if job.get("started").is_some_and(|s| !s.is_null()) { "/started" } else { "/created" };
        let progress =
            match (job.pointer("/progress/total").and_then(Value::as_u64), number(job, "/progress/done")) {
                (Some(total), done) if total > 0 => {
                    format!("{} {:.0} %", text(job, "/progress/phase"), done as f64 * 100.0 / total as f64)
                }
                _ => text(job, "/progress/phase").to_owned(),
            };
        vec![
            number(job, "/id").to_string(),
            text(job, "/kind").to_owned(),
            text(job, "/server").to_owned(),
            text(job, "/standing").to_owned(),
            text(job, "/by").to_owned(),
            when(job, begun),
            progress,
            job.pointer("/failure/code").and_then(Value::as_str).unwrap_or("-").to_owned(),
        ]
    };
    let header = ["JOB", "KIND", "SERVER", "STANDING", "BY", "BEGUN", "PROGRESS", "CAUSE"];
    table(out, &header, &jobs.iter().map(cells).collect::<Vec<_>>())
}

/// What `check` asks of each server: its name, how bad it is (0, 1, 2), and the sentence.
pub(super) fn verdicts(client: &Client) -> Result<Vec<super::check::Verdict>> {
    let status = client.get("/status")?;
    let servers = rows(&status, "/servers").iter();
    Ok(servers
        .map(|s| super::check::Verdict {
            server: text(s, "/server").to_owned(),
            grade: match text(s, "/level") {
                "green" => 0,
                "amber" => 1,
                _ => 2,
            },
            sentence: text(s, "/headline").to_owned(),
            lag_seconds: s.pointer("/stream/lag_seconds").and_then(Value::as_f64),
        })
        .collect())
}
