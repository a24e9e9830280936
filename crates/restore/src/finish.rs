//! `restore finish`: the fence goes, and with it the marker.

use std::path::Path;
use std::time::Duration;

use holdfast_engine::{Listen, PrivateServer, Programs, StartOptions, stop_server_on};

use crate::error::{Error, Result};
use crate::fence;
use crate::in_place::{self, Mark, Stage};
use crate::marker::{FolderLock, Marker, State};
use crate::origin::Origin;
use crate::replica;
use crate::run::{Running, SHUTDOWN_LIMIT, SOCKET, keep_running};

/// Longest time for a start of a server that was shut down cleanly.
const START_LIMIT: Duration = Duration::from_secs(600);

/// What `finish` left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What the marker said.
    pub marker: Marker,
    /// The server, if it ran before: it runs again, without the fence.
    pub running: Option<Running>,
    /// What is to be known of how it went.
    pub remarks: Vec<String>,
}

/// Reads the marker of a folder that `finish` may be called on.
pub fn marker(folder: &Path) -> Result<Marker> {
    let no = |why: &str| Error::NoRestore { folder: folder.to_path_buf(), why: why.to_owned() };
    match Marker::read(folder)? {
        None => Err(no("it has no marker of a restore (finished already?)")),
        Some(marker) if marker.state == State::UnderWay => {
            Err(no("its restore is not finished; run the same `holdfast restore` again"))
        }
        Some(marker) => Ok(marker),
    }
}

/// Lifts the fence of the restored server in `folder`. A server of ours that runs on it is
/// restarted, and runs on; otherwise none runs afterwards. May be called again after a crash.
pub fn finish(folder: &Path, programs: &Programs) -> Result<Finished> {
    let marker = marker(folder)?;
    let folder = folder.canonicalize().map_err(|source| Error::file("open the folder", folder, source))?;
    let _lock = FolderLock::take(&folder)?;
    stop_server_on(&folder, SHUTDOWN_LIMIT)?;
    fence::take_away(&folder, programs.flavor())?;
    let mut options = StartOptions::new(programs.clone(), &folder);
    options.purpose = "the restored server".to_owned();
    options.timeout = START_LIMIT;
    options.log = Some(folder.join(crate::run::SERVER_LOG));
    options.extra_args.clone_from(&marker.settings);
    if let Some(port) = marker.port {
        options.listen = Listen::Loopback(port);
        options.socket = Some(folder.join(SOCKET));
    }
    let server = PrivateServer::start(options)?;
    let remarks = server.network_remark().into_iter().collect();
    let mut conn = server.connect()?;
    let flavor = programs.flavor();
    if marker.port.is_some() && marker.replica_of.is_some() {
        replica::start(&mut conn, flavor)?;
    }
    server.drop_account(&mut conn)?;
    drop(conn);
    let running = match marker.port {
        Some(_) => Some(keep_running(server)),
        None => {
            server.stop(SHUTDOWN_LIMIT)?;
            if marker.replica_of.is_some() {
                replica::untie(&folder, flavor)?;
            }
            None
        }
    };
    if marker.tables.is_none() {
        Origin::leave(&marker, &folder)?;
    }
    if let Some(mut mark) = Mark::read(&folder)? {
        // The restore is done, whether or not its command lived to say so; its undo counts on that.
        mark.stage = Stage::Restored;
        mark.write(&folder)?;
        in_place::give_back(&folder, mark.mode)?;
    }
    Marker::remove(&folder)?;
    Ok(Finished { marker, running, remarks })
}
