//! `list`, `status`, `timeline`, `find`, `show`.

use super::jobs::show_estimate;
use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, Find};
use crate::output::{Output, duration, size, table};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::find::{ScannedView, Wanted};
use holdfast_appliance::show::TransactionView;
use holdfast_appliance::time::{now, parse_time_or_age, show_time, show_time_both};
use holdfast_appliance::trust::{self, TrustView, TrustedView};
use holdfast_appliance::views::{BackupView, CellView, FoundView, RowView, Shown, TimelineView};
use std::io::{self, Write};

pub(super) fn list(common: &Common, output: Output, name: Option<&str>) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let views = holdfast_appliance::list::list(&catalogue, name)?;
    output.answer(&serde_json::json!({ "backups": views }), |out| backups(out, &views))?;
    Ok(DONE)
}

fn backups(out: &mut dyn Write, views: &[BackupView]) -> io::Result<()> {
    if views.is_empty() {
        return writeln!(out, "There are no backups yet.");
    }
    let header = [
        "ID",
        "SERVER",
        "COMPLETED (UTC)",
        "TOOK",
        "DATA",
        "STORED",
        "SOURCE",
        "PROOF",
        "KEPT",
        "NAME",
        "NOTE",
    ];
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|b| {
            vec![
                b.id.clone(),
                b.server.clone(),
                show_time(b.completed).replace('T', " ").trim_end_matches('Z').to_owned(),
                duration(b.completed.saturating_sub(b.started)),
                size(b.data_bytes),
                size(b.stored_bytes),
                b.source.clone(),
                b.proof.clone().unwrap_or_else(|| "-".into()),
                kept(b),
                b.name.clone().unwrap_or_else(|| "-".into()),
                b.note.clone(),
            ]
        })
        .collect();
    table(out, &header, &rows)?;
    views.iter().filter(|b| !b.warnings.is_empty()).try_for_each(|b| {
        let first = b.warnings.first().map_or("", String::as_str);
        match b.warnings.len() {
            1 => writeln!(out, " {}: {first}", b.id),
            more => writeln!(out, " {}: {more} warnings, the first: {first}", b.id),
        }
    })
}

/// What keeps a backup besides the policy: `held`, or the date until which it is kept.
fn kept(backup: &BackupView) -> String {
    let until = backup.keep_until.filter(|until| *until > now());
    let until = until.map(|until| show_time(until).chars().take_while(|c| *c != 'T').collect::<String>());
    if backup.held { "held".to_owned() } else { until.unwrap_or_else(|| "-".into()) }
}

pub(super) fn status(common: &Common, output: Output, name: Option<&str>) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let views = trust::status(&catalogue, name)?;
    let answer = serde_json::json!({ "at": show_time(now()), "servers": views });
    output.answer(&answer, |out| {
        servers(out, &views)?;
        let one = name.and_then(|_| views.first());
        one.map_or(Ok(()), |view| {
            show_estimate(out, view.estimate.as_ref())?;
            trusted(out, &view.trust)
        })
    })?;
    Ok(if views.iter().all(|v| v.status.protected == "yes") { DONE } else { DONE_WITH_WARNINGS })
}

/// The figure, and what it is the sum of.
fn trusted(out: &mut dyn Write, view: &TrustView) -> io::Result<()> {
    writeln!(out, "TRUST {} of 100", view.figure)?;
    for part in &view.parts {
        writeln!(out, " {:>5.1} of {:>2.0}  {:<13}  {}", part.points, part.of, part.name, part.says)?;
    }
    view.limited.iter().try_for_each(|why| writeln!(out, " {why}"))
}

fn servers(out: &mut dyn Write, views: &[TrustedView]) -> io::Result<()> {
    if views.is_empty() {
        return writeln!(out, "No server is protected yet: holdfast server add NAME --host HOST --user USER");
    }
    let header = [
        "SERVER",
        "ENGINE",
        "PROTECTED",
        "RECOVERABLE",
        "ARCHIVE",
        "LAST BACKUP",
        "PROOF",
        "RESTORE",
        "TRUST",
    ];
    let rows: Vec<Vec<String>> = views.iter().map(row).collect();
    table(out, &header, &rows)?;
    for view in views {
        writeln!(out, " {}: {}", view.status.server, view.status.sentence)?;
        if let Some(origin) = &view.status.origin {
            writeln!(out, "   {}", origin.words())?;
        }
    }
    Ok(())
}

fn row(view: &TrustedView) -> Vec<String> {
    let TrustedView { status: view, trust, estimate } = view;
    let seconds = |seconds: f64| duration((seconds * 1e6) as i64);
    let age = |at: i64| format!("{} ago", duration(now().saturating_sub(at)));
    // A hole is no part of what can be recovered, so stretches before the last one are counted only.
    let recoverable = match (view.spans.last(), view.spans.len()) {
        (None, _) => "-".to_owned(),
        (Some(last), 1) => format!("{} -> {}", show_time(last.from), show_time(last.until)),
        (Some(last), n) => {
            format!("{} -> {} (+{} earlier)", show_time(last.from), show_time(last.until), n - 1)
        }
    };
    vec![
        view.server.clone(),
        view.engine.clone(),
        view.protected.to_owned(),
        recoverable,
        if view.archive_running { "running" } else { "not running" }.to_owned(),
        view.last_backup.as_ref().map_or_else(|| "none".into(), |b| age(b.completed)),
        view.last_backup.as_ref().and_then(|b| b.proof.clone()).unwrap_or_else(|| "-".into()),
        estimate.as_ref().map_or_else(
            || "-".into(),
            |made| format!("{}..{}", seconds(made.seconds_min), seconds(made.seconds_max)),
        ),
        trust.figure.to_string(),
    ]
}

pub(super) fn timeline(common: &Common, output: Output, name: &str) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let view = holdfast_appliance::status::timeline(&catalogue, name)?;
    output.answer(&view, |out| draw(out, &view))?;
    Ok(if view.gaps.is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

/// Backups, spans and holes in the order of time, one line each.
fn draw(out: &mut dyn Write, view: &TimelineView) -> io::Result<()> {
    let mut lines: Vec<(i64, String)> = Vec::new();
    for b in &view.backups {
        lines.push((b.completed, format!("  o  backup {}  {}  {}", b.id, size(b.data_bytes), b.note)));
    }
    for span in &view.spans {
        lines.push((span.from, format!("  |  log from {}", span.from_position)));
        let until = format!("  |  log until {} ({} transactions)", span.until_position, span.transactions);
        lines.push((span.until, until));
    }
    for zero_loss in &view.zero_loss {
        lines.push((zero_loss.from, "  +  zero loss from here".to_owned()));
        lines.push((zero_loss.until, "  +  zero loss until here".to_owned()));
    }
    for over in &view.fail_overs {
        let line = format!("  >  fail-over: behind {} goes on {} of {}", over.after, over.at, over.uuid);
        let earlier = lines.iter().map(|(at, _)| *at).max();
        lines.push((over.first.or(earlier).unwrap_or_default(), line));
    }
    for gap in &view.gaps {
        let line = format!("  X  HOLE after {}: {}", gap.after, gap.reason);
        // Where nobody noticed it, it stands behind what comes before it.
        let earlier = lines.iter().map(|(at, _)| *at).max();
        lines.push((gap.noticed.or(earlier).unwrap_or_default(), line));
    }
    if lines.is_empty() {
        return writeln!(out, "There is neither a backup nor a log of '{}' yet.", view.server);
    }
    lines.sort_by_key(|(at, _)| *at);
    lines.iter().try_for_each(|(at, line)| writeln!(out, "{}{}", show_time(*at), line.trim_end()))
}

pub(super) fn find(common: &Common, output: Output, find: &Find) -> Result<u8, Stop> {
    let time = |text: &Option<String>| text.as_deref().map(|t| parse_time_or_age(t, now())).transpose();
    let wanted = Wanted {
        ddl: find.ddl,
        table: find.table.clone(),
        like: find.like.clone(),
        rows_over: find.rows_over,
        since: time(&find.since)?,
        until: time(&find.until)?,
        limit: find.limit,
        scan: find.scan,
        user: find.user.clone(),
    };
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let found = holdfast_appliance::find::find(&catalogue, &find.name, &wanted, &meter);
    meter.finish();
    let found = found?;
    let mut answer = serde_json::json!({ "found": found.found, "more": found.more });
    if let (Some(scanned), Some(answer)) = (&found.scanned, answer.as_object_mut()) {
        answer.insert("scanned".to_owned(), serde_json::json!(scanned));
    }
    output.answer(&answer, |out| {
        let last = found.found.len();
        found.found.iter().try_for_each(|f| say(out, f))?;
        match (last, found.more) {
            (0, _) => writeln!(out, "Nothing in the archive fits."),
            (_, true) => {
                writeln!(out, "There is more; narrow it with --since and --until, or raise --limit.")
            }
            _ => Ok(()),
        }?;
        found.scanned.map_or(Ok(()), |scanned| read(out, find, &scanned))
    })?;
    Ok(DONE)
}

/// What the log that was read can say at all.
fn read(out: &mut dyn Write, find: &Find, scanned: &ScannedView) -> io::Result<()> {
    let ScannedView { transactions, with_statement, with_user } = scanned;
    writeln!(
        out,
        "Read {transactions} transactions in the log: {with_statement} have the original statement of their row changes, \
         {with_user} a user."
    )?;
    if find.like.is_some() && *with_statement == 0 {
        writeln!(
            out,
            "The server does not log original statements: set binlog_rows_query_log_events=ON (MariaDB: \
             binlog_annotate_row_events=ON)."
        )?;
    }
    if find.user.is_some() && with_user < transactions {
        writeln!(
            out,
            "Of the others the log does not say who ran them, so '{}' may have.",
            find.user.as_deref().unwrap_or_default()
        )?;
    }
    Ok(())
}

pub(super) fn say(out: &mut dyn Write, found: &FoundView) -> io::Result<()> {
    writeln!(out, "{}  {}  {}  at {}", found.id, show_time_both(found.at), found.kind, found.position)?;
    if let Some(statement) = &found.statement {
        writeln!(out, "    {}", statement.split_whitespace().collect::<Vec<_>>().join(" "))?;
    }
    if let Some(user) = &found.user {
        writeln!(out, "    run by {user}")?;
    }
    for t in &found.tables {
        writeln!(out, "    {}  +{} ~{} -{}", t.table, t.inserted, t.updated, t.deleted)?;
    }
    Ok(())
}

pub(super) fn show(common: &Common, output: Output, name: &str, id: &str, limit: u32) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let view = holdfast_appliance::show::show(&catalogue, name, id, limit as usize)?;
    output.answer(&view, |out| transaction(out, &view))?;
    Ok(DONE)
}

fn transaction(out: &mut dyn Write, view: &TransactionView) -> io::Result<()> {
    say(out, &view.found)?;
    view.queries.iter().try_for_each(|query| writeln!(out, "    query: {query}"))?;
    view.rows.iter().try_for_each(|changed| row_line(out, changed))?;
    match view.more {
        0 => Ok(()),
        more => writeln!(out, "and {more} more rows; raise --limit to see them"),
    }
}

/// `~ shop.t  id=1  v=2 -> 3`.
pub(super) fn row_line(out: &mut dyn Write, row: &RowView) -> io::Result<()> {
    let sign = match row.change {
        "insert" => '+',
        "delete" => '-',
        _ => '~',
    };
    let cells: Vec<String> = row.cells.iter().map(cell).collect();
    writeln!(out, "{sign} {}  {}", row.table, cells.join("  "))
}

/// `name=value`, or both values of a change.
fn cell(cell: &CellView) -> String {
    let value = |shown: &Shown| match shown {
        Shown::Null => "NULL".to_owned(),
        Shown::Text(text) => format!("{text:?}"),
        Shown::Other(text) => text.clone(),
    };
    match (&cell.before, &cell.after) {
        (Some(before), Some(after)) if before != after => {
            format!("{}={} -> {}", cell.column, value(before), value(after))
        }
        (Some(one), _) | (None, Some(one)) => format!("{}={}", cell.column, value(one)),
        (None, None) => cell.column.clone(),
    }
}
