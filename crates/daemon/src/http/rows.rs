//! `diff` and one transaction: the only answers with rows of the protected servers' tables in them. Who asked
//! is on record before they are given.

use super::answer::{Outcome, json};
use super::api::{Request, known};
use crate::daemon::Daemon;
use holdfast_appliance::diff::{Wanted, diff as compare};
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::show::show;
use hyper::StatusCode;

/// Rows that are given when nothing is said.
const ROWS: u32 = 100;

pub(super) fn diff(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    daemon.audit.note(&asked.caller.name, &asked.what, "asked")?;
    let needed = |name: &str| -> Result<String> {
        asked.param(name)?.filter(|text| !text.is_empty()).ok_or_else(|| {
            Error::usage(format!("'{name}' is missing."))
                .with_next("give table=DATABASE.TABLE, from and to: two moments")
        })
    };
    let wanted = Wanted {
        table: needed("table")?,
        from: needed("from")?,
        to: asked.param("to")?.unwrap_or_else(|| "latest".to_owned()),
        limit: asked.limit()?.unwrap_or(ROWS) as usize,
        on: None,
    };
    json(StatusCode::OK, &compare(&daemon.catalogue, asked.part(), &wanted)?)
}

pub(super) fn transaction(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    daemon.audit.note(&asked.caller.name, &asked.what, "asked")?;
    let id = asked.parts.get(1).map_or("", String::as_str);
    json(StatusCode::OK, &show(&daemon.catalogue, asked.part(), id, asked.limit()?.unwrap_or(ROWS) as usize)?)
}
