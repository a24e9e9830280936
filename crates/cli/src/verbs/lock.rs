//! `server lock`, `unlock`, `remove`, `undelete` on the repository itself.

use super::{DONE, Stop, open};
use crate::args::{Common, ServerVerb};
use crate::output::Output;
use holdfast_appliance::error::Error;
use holdfast_appliance::server_lock::{self, LockView};
use holdfast_appliance::time::show_time;
use std::io::{self, Write};

pub(super) fn server(common: &Common, output: Output, verb: ServerVerb) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    match verb {
        // No policy is known here: nothing may go.
        ServerVerb::Lock { name, reason, .. } => {
            let view = server_lock::lock_server(&catalogue, &name, &[], &reason)?;
            output.answer(&view, |out| say(out, &view))?;
        }
        ServerVerb::Unlock { name, reason } => {
            let view = server_lock::unlock_server(&catalogue, &name, &reason)?;
            output.answer(&view, |out| say(out, &view))?;
        }
        ServerVerb::Remove { name, confirm } => {
            confirmed(&name, &confirm)?;
            let view = server_lock::remove(&catalogue, &name, false)?;
            output.answer(&view, |out| removed(out, &name, view.backups))?;
        }
        ServerVerb::Undelete { name } => {
            let view = server_lock::undelete(&catalogue, &name)?;
            output
                .answer(&view, |out| writeln!(out, "'{name}' is back, with {} backup(s).", view.backups))?;
        }
        ServerVerb::Add(_) | ServerVerb::List { .. } | ServerVerb::Show { .. } => {}
    }
    Ok(DONE)
}

/// Refuses a removal of which the name was not typed twice.
pub(super) fn confirmed(name: &str, confirm: &str) -> Result<(), Error> {
    if name == confirm {
        return Ok(());
    }
    Err(Error::usage(format!("--confirm says '{confirm}', and the server is '{name}'."))
        .with_next(format!("holdfast server remove {name} --confirm {name}")))
}

pub(super) fn removed(out: &mut dyn Write, name: &str, backups: u64) -> io::Result<()> {
    writeln!(out, "'{name}' is protected no more. Its {backups} backup(s) and its log stay.")?;
    writeln!(out, "next: holdfast server undelete {name} brings it back")
}

pub(super) fn say(out: &mut dyn Write, view: &LockView) -> io::Result<()> {
    let Some(since) = view.since else { return writeln!(out, "'{}' is not locked.", view.server) };
    let why = if view.reason.is_empty() { String::new() } else { format!(": {}", view.reason) };
    writeln!(out, "locked   since {}{why}", show_time(since))?;
    match &view.terms {
        Some(terms) => writeln!(out, "         retention keeps at least {terms}"),
        None => writeln!(out, "         nothing of it is forgotten"),
    }
}
