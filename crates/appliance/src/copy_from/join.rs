//! Whether a replica's copy stands in the archived log of the server, so that restores go on from it.

use crate::archive::{archive_error, drain, wait_for_archive};
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::progress::Watcher;
use holdfast_archive::{CopyFacts, ServerLog};
use holdfast_format::record::{Coordinates, ServerRecord};
use holdfast_source::Facts;

/// Brings the archive up to the server's present end, and makes sure that the copy stands in it: both bounds have a place,
/// there is no hole behind the first one, and every transaction there has a GTID, by which the copy tells what it holds.
pub(crate) fn joins(
    catalogue: &Catalogue,
    server: &ServerRecord,
    (coordinates, facts): (&Coordinates, &Facts),
    watcher: &dyn Watcher,
) -> Result<()> {
    match drain(catalogue, server, watcher) {
        Err(error) if error.code == Code::Locked => wait_for_archive(catalogue, server)?,
        other => other.map(drop)?,
    }
    let told = |e| archive_error(catalogue, server, e);
    let Coordinates::Between { lo, hi } = coordinates else {
        return Err(Error::failed("Where the copy stands is not known."));
    };
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    let value = |key: &str| facts.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let copy = CopyFacts::new(crate::time::now(), value);
    let place = |at| log.place_of_copy(at, &copy).map_err(told);
    let (Some(from), Some(_), Some(end)) = (place(lo)?, place(hi)?, log.end()) else {
        return Err(Error::failed(format!(
            "The archived log of '{}' holds no place up to which exactly those transactions came that the replica had \
             executed: it begins later, or has them in another order.",
            server.name
        )));
    };
    if let Some(hole) = log.gap(from, end).map_err(told)? {
        return Err(Error::failed(format!("The log has a hole behind the copy: {}", sentence(&hole.reason))));
    }
    match log.anonymous_behind(from).map_err(told)? {
        Some(at) => Err(Error::failed(format!(
            "The transaction at {at} has no GTID, so nothing tells whether the copy holds it."
        ))),
        None => Ok(()),
    }
}
