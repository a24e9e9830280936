//! `undo`, `diff`.

use super::look::{row_line, say};
use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, Diff, On, Undo};
use crate::output::Output;
use holdfast_appliance::ServerKind;
use holdfast_appliance::catalogue::Catalogue;
use holdfast_appliance::diff::DiffView;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::settings::Login;
use holdfast_appliance::undo::{Applied, How, UndoView, Wanted};
use std::io::{self, Write};

/// Exit status when rows are in the way, and nothing was changed.
const IN_THE_WAY: u8 = 1;

/// The server that was named, with the protected one's login where it says nothing else.
pub(super) fn on(catalogue: &Catalogue, name: &str, on: &On) -> Result<Option<(ServerKind, Login)>> {
    let server = catalogue.server(name)?;
    if on.host.is_none() && on.socket.is_none() && on.user.is_none() {
        return Ok(None);
    }
    let kind = match (&on.socket, &on.host) {
        (Some(socket), _) => {
            let socket = socket
                .to_str()
                .ok_or_else(|| Error::usage(format!("The path {} is not valid UTF-8.", socket.display())))?;
            ServerKind::Network { host: String::new(), port: 0, socket: Some(socket.to_owned()) }
        }
        (None, Some(host)) => ServerKind::Network { host: host.clone(), port: on.port, socket: None },
        (None, None) => server.kind.clone(),
    };
    let known = catalogue.login(&server)?.unwrap_or_default();
    let login = Login {
        user: on.user.clone(),
        password_file: on.password_file.clone(),
        defaults_file: None,
        // How the protected server proves itself says nothing of another one.
        ..if on.host.is_some() || on.socket.is_some() { Login::default() } else { known }
    };
    Ok(Some((kind, login)))
}

pub(super) fn undo(common: &Common, output: Output, undo: &Undo) -> std::result::Result<u8, Stop> {
    let catalogue = open(common)?;
    let wanted = Wanted {
        ids: undo.transactions.clone(),
        table: undo.table.clone(),
        on: on(&catalogue, &undo.name, &undo.on)?,
    };
    if !undo.apply {
        let view = holdfast_appliance::undo::sql(&catalogue, &undo.name, &wanted)?;
        output.answer(&view, |out| statements(out, &view))?;
        return Ok(DONE);
    }
    let how = How { dry_run: undo.dry_run, skip_conflicts: undo.skip_conflicts, force: undo.force };
    let applied = holdfast_appliance::undo::apply(&catalogue, &undo.name, &wanted, how)?;
    output.answer(&applied, |out| told(out, &applied, how))?;
    Ok(match (applied.conflicts_all, applied.applied) {
        (0, _) => DONE,
        (_, true) => DONE_WITH_WARNINGS,
        (_, false) => IN_THE_WAY,
    })
}

/// SQL with what it is in comments, to be run as it is.
fn statements(out: &mut dyn Write, view: &UndoView) -> io::Result<()> {
    let mut comments = Vec::new();
    view.transactions.iter().try_for_each(|found| say(&mut comments, found))?;
    writeln!(
        out,
        "-- Undoes {} changes of rows. Rows that changed since are not looked at; --apply does.",
        view.rows
    )?;
    String::from_utf8_lossy(&comments).lines().try_for_each(|line| writeln!(out, "-- {line}"))?;
    view.warnings
        .iter()
        .try_for_each(|warning| writeln!(out, "-- warning: {}", warning.replace('\n', " ")))?;
    view.statements.iter().try_for_each(|statement| writeln!(out, "{statement};"))
}

fn told(out: &mut dyn Write, applied: &Applied, how: How) -> io::Result<()> {
    applied.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))?;
    if applied.already_undone {
        return writeln!(out, "Nothing is left to undo: every row is as it was before.");
    }
    for conflict in &applied.conflicts {
        writeln!(out, "conflict: {} {}: {}", conflict.table, conflict.row, conflict.why)?;
    }
    if applied.conflicts_all > applied.conflicts.len() as u64 {
        writeln!(out, "and {} more", applied.conflicts_all - applied.conflicts.len() as u64)?;
    }
    let (rows, skipped) = (applied.rows, applied.skipped);
    match (applied.applied, applied.conflicts_all) {
        (true, 0) => writeln!(out, "Undone: {rows} changes of rows."),
        (true, _) => writeln!(out, "Undone: {rows} changes of rows; {skipped} left alone."),
        (false, 0) => writeln!(out, "Nothing is in the way of undoing {rows} changes of rows."),
        (false, _) if how.skip_conflicts => {
            writeln!(
                out,
                "Nothing was changed; {rows} changes of rows can be undone, {skipped} are left alone."
            )
        }
        (false, conflicts) => writeln!(
            out,
            "Nothing was changed: {conflicts} rows are not as the transactions left them. \
             --skip-conflicts undoes the other {rows} changes."
        ),
    }
}

pub(super) fn diff(common: &Common, output: Output, diff: &Diff) -> std::result::Result<u8, Stop> {
    let catalogue = open(common)?;
    let wanted = holdfast_appliance::diff::Wanted {
        table: diff.table.clone(),
        from: diff.from.clone(),
        to: diff.to.clone(),
        limit: diff.limit as usize,
        on: on(&catalogue, &diff.name, &diff.on)?,
    };
    let view = holdfast_appliance::diff::diff(&catalogue, &diff.name, &wanted)?;
    output.answer(&view, |out| differences(out, &view))?;
    Ok(DONE)
}

fn differences(out: &mut dyn Write, view: &DiffView) -> io::Result<()> {
    view.rows.iter().try_for_each(|row| row_line(out, row))?;
    if view.more > 0 {
        writeln!(out, "and {} more rows; raise --limit to see them", view.more)?;
    }
    writeln!(out, "{}  +{} ~{} -{}", view.table, view.inserted, view.updated, view.deleted)
}
