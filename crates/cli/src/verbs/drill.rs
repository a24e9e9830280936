//! `drill`, here or by the daemon.

use super::daemon::{number, rows, text, wait};
use super::jobs::{level, show_evidence};
use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, Drill, Prove};
use crate::client::{Client, encoded};
use crate::output::{Output, duration};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::check_queries::{self, Queries};
use holdfast_appliance::drill::{ByHand, by_hand};
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::restore::Target;
use serde_json::{Value, json};
use std::io::{self, Write};

/// What `--at` takes beside the moments of a restore.
const RANDOM: &str = "random";

fn by(wanted: &Drill) -> Result<ByHand> {
    let mut queries = Queries::default();
    queries.limit = wanted.query_time.unwrap_or(queries.limit);
    for text in &wanted.check_query {
        check_queries::add_text(&mut queries, text, "--check-query")?;
    }
    for file in &wanted.check_file {
        check_queries::add_file(&mut queries, file)?;
    }
    let absolute = |path: &std::path::PathBuf| {
        std::path::absolute(path)
            .map_err(|error| Error::usage(format!("The folder {} can't be used: {error}.", path.display())))
    };
    Ok(ByHand {
        at: (wanted.at != RANDOM).then(|| Target::parse(&wanted.at)).transpose()?,
        scratch: wanted.scratch.as_ref().map(absolute).transpose()?,
        engine_dir: wanted.engine_dir.clone(),
        prove: level(wanted.prove.unwrap_or(Prove::Standard)),
        queries,
    })
}

pub(super) fn drill(common: &Common, output: Output, wanted: &Drill) -> std::result::Result<u8, Stop> {
    let by = by(wanted)?;
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let done = by_hand(&catalogue, &wanted.name, &by, &meter);
    meter.finish();
    let view = done?;
    output.answer(&view, |out| {
        writeln!(out, "Drilled '{}' to {}; the folder is gone again.", view.server, view.reached)?;
        show_evidence(out, &view)?;
        view.report.queries.iter().try_for_each(|answer| show_answer(out, &json!(answer)))
    })?;
    Ok(if view.report.lacking.is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

/// A character; one that shows nothing, as it is escaped.
fn plain(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

/// A query's answer as its JSON has it, whoever asked it.
fn show_answer(out: &mut dyn Write, answer: &Value) -> io::Result<()> {
    let (count, values) = (number(answer, "/rows"), rows(answer, "/first_row"));
    let first = match values {
        // A row may hold what a terminal takes for orders.
        [value] if count == 1 => value.as_str().unwrap_or("NULL").chars().flat_map(plain).collect(),
        _ => format!("{count} rows"),
    };
    let seconds = answer.pointer("/seconds").and_then(Value::as_f64).unwrap_or_default();
    let took = duration((seconds * 1e6) as i64);
    writeln!(out, "  query        {}: {first} ({}), {took}", text(answer, "/name"), text(answer, "/expected"))
}

/// The daemon picks the moment and has the queries.
pub(super) fn by_daemon(
    client: &Client,
    output: Output,
    wanted: &Drill,
    quiet: bool,
) -> std::result::Result<u8, Stop> {
    let own = !wanted.check_query.is_empty() || !wanted.check_file.is_empty() || wanted.scratch.is_some();
    let how = wanted.prove.is_some() || wanted.query_time.is_some();
    if own || how || wanted.at != RANDOM {
        return Err(Error::usage(
            "The daemon picks the moment of a drill, its folder, its queries, their time and how much to prove itself.",
        )
        .with_next(
            "write check_queries and [drills] into its configuration, or leave --daemon away and name the repository",
        )
        .into());
    }
    let job = client.ask("POST", &format!("/servers/{}/drills", encoded(&wanted.name)), None)?;
    let view = wait(client, number(&job, "/id"), quiet)?;
    output.answer(&view, |out| {
        writeln!(out, "Drilled '{}' to {}; the folder is gone again.", wanted.name, text(&view, "/reached"))?;
        for line in rows(&view, "/evidence") {
            writeln!(out, "  proved       {}", line.as_str().unwrap_or_default())?;
        }
        for answer in rows(&view, "/report/queries") {
            show_answer(out, answer)?;
        }
        for line in rows(&view, "/report/lacking") {
            writeln!(out, "  LACKS        {}", line.as_str().unwrap_or_default())?;
        }
        Ok(())
    })?;
    Ok(if rows(&view, "/report/lacking").is_empty() { DONE } else { DONE_WITH_WARNINGS })
}
