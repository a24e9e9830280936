//! A moment as a private server: restored and proved in a folder to work in, and started there to be read.

use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::export::datadir::settings;
use crate::progress::Watcher;
use crate::restore::{self, Options, RestoredView};
use crate::scratch::Scratch;
use holdfast_engine::{PrivateServer, Programs, StartOptions};
use holdfast_mysql::ServerVersion;
use holdfast_restore::marker::{Marker, State};

/// The longest statement and row that is read: the servers' largest `max_allowed_packet`.
const PACKET_BYTES_MAX: usize = 1 << 30;

fn told(error: &dyn std::error::Error) -> Error {
    Error::failed(sentence(&error.to_string()))
}

/// Restores into the folder and proves it; `options.into` is not used. Gives the options as they were used. An interrupted
/// restore leaves the folder, so that the same command goes on with it; after any other error it is gone.
///
/// # Errors
/// As [`restore::restore`].
pub(crate) fn restore(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    scratch: Scratch,
    watcher: &dyn Watcher,
) -> Result<(Scratch, Options, RestoredView)> {
    let data = scratch.data();
    let there = if data.exists() { Marker::read(&data).map_err(|e| told(&e))? } else { None };
    if there.is_none_or(|marker| marker.state != State::UnderWay) {
        scratch.clear_data()?;
    }
    let options = Options { into: data, start: false, port: None, ..options.clone() };
    match restore::restore(catalogue, name, &options, watcher) {
        Ok(restored) => Ok((scratch, options, restored)),
        Err(error) if error.code == Code::Interrupted => Err(error),
        Err(error) => {
            scratch.clear()?;
            Err(error)
        }
    }
}

/// Starts a server on what was restored, with the source's settings. None: it was called off.
///
/// # Errors
/// `Failed` where no program fits, or it does not start.
pub(crate) fn start(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    restored: &RestoredView,
    purpose: &str,
    watcher: &dyn Watcher,
) -> Result<Option<PrivateServer>> {
    let version = restored.report.plan.version.as_deref().unwrap_or_default();
    let version = ServerVersion::parse(version);
    let programs = Programs::find(options.engine_dir.as_deref(), version.flavor, Some(&version));
    let mut start = StartOptions::new(programs.map_err(|e| told(&e))?, &options.into);
    start.purpose = purpose.to_owned();
    start.extra_args = settings(catalogue, name, restored)?;
    start.extra_args.push(format!("--max-allowed-packet={PACKET_BYTES_MAX}"));
    match PrivateServer::start_while(start, &|| !watcher.cancelled()) {
        Ok(server) => {
            server.network_remark().iter().for_each(|remark| watcher.note(remark));
            Ok(Some(server))
        }
        Err(holdfast_engine::Error::Cancelled { .. }) => Ok(None),
        Err(other) => Err(told(&other)),
    }
}
