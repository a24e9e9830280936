//! The fence around a restored server: read-only, no scheduled events, no replication, until
//! somebody who knows what the restore was for says `restore finish`.
//!
//! MySQL keeps the fence in the folder itself, as persisted variables, so that it holds whoever
//! starts the server (except with `--no-defaults`, which skips them: observed on 9.7.4). MariaDB has
//! no such thing: an option file in the folder holds the settings, and the start line that is
//! printed names it.

use std::fs;
use std::path::Path;

use holdfast_engine::PrivateServer;
use holdfast_mysql::{Conn, Flavor};

use crate::config::CONFIG_FILE;
use crate::error::{Error, Result};

/// The option file in the restored folder.
pub const FENCE_FILE: &str = "holdfast-fence.cnf";

/// MySQL's file of persisted variables.
const PERSISTED_FILE: &str = "mysqld-auto.cnf";

/// Variables that make MySQL's fence.
const PERSISTED: [(&str, &str); 3] =
    [("event_scheduler", "OFF"), ("skip_replica_start", "ON"), ("super_read_only", "ON")];

/// Puts the fence up and drops the one-time account. `conn` can still read afterwards: a session
/// keeps the privileges that it logged in with. `with_config`: the folder has the source's settings as a file, which the
/// fence's takes in.
pub fn put_up(server: &PrivateServer, conn: &mut Conn, with_config: bool) -> Result<()> {
    let folder = server.datadir();
    let path = folder.join(FENCE_FILE);
    // What comes last counts.
    let config = folder.join(CONFIG_FILE);
    let include = if with_config { format!("!include {}\n", config.display()) } else { String::new() };
    fs::write(&path, format!("{include}{FENCE_TEXT}"))
        .and_then(|()| fs::File::open(&path)?.sync_all())
        .map_err(|source| Error::file("write", path, source))?;
    match server.programs().flavor() {
        Flavor::MySql => {
            // The server does not know what the folder's file holds, since it was started without
            // it, and would write it anew; so an existing file is put aside, and comes back with `finish`.
            put_aside(folder)?;
            for (variable, value) in PERSISTED {
                conn.execute(format!("SET PERSIST_ONLY {variable} = {value}"))?;
            }
            server.drop_account(conn)?;
            conn.execute("SET GLOBAL super_read_only = ON")?;
        }
        Flavor::MariaDb => {
            server.drop_account(conn)?;
            conn.execute("SET GLOBAL read_only = ON")?;
        }
    }
    Ok(())
}

/// Takes the fence of a folder away on which no server runs. May be called again.
pub fn take_away(folder: &Path, flavor: Flavor) -> Result<()> {
    let (aside, file) = (folder.join(ASIDE), folder.join(PERSISTED_FILE));
    // Behind the fence nothing can be persisted, so the file holds the fence and nothing else.
    if flavor == Flavor::MySql
        && let Ok(found) = fs::metadata(&aside)
    {
        let done = if found.len() > 0 {
            fs::rename(&aside, &file)
        } else {
            remove_if_there(&file).and_then(|()| remove_if_there(&aside))
        };
        done.map_err(|source| Error::file("take the fence out of", file, source))?;
    }
    let path = folder.join(FENCE_FILE);
    remove_if_there(&path).map_err(|source| Error::file("remove", path, source))
}

/// Where the source's own persisted variables wait; empty where it had none. While it is there the
/// file of persisted variables is ours.
const ASIDE: &str = "mysqld-auto.cnf.source";

/// The option file's text.
const FENCE_TEXT: &str = "# Written by a restore; `holdfast restore finish` removes it.\n\
                          [mysqld]\nread_only=ON\nevent_scheduler=OFF\nloose_skip_slave_start\n";

fn put_aside(folder: &Path) -> Result<()> {
    let (aside, file) = (folder.join(ASIDE), folder.join(PERSISTED_FILE));
    // Half a fence of a restore that was killed, or a whole one of a restore that goes on.
    if aside.exists() {
        return Ok(());
    }
    let done = if file.exists() { fs::rename(&file, &aside) } else { fs::File::create(&aside).map(drop) };
    done.map_err(|source| Error::file("put aside", file, source))
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How a person starts the restored server by hand when the fence is gone.
#[must_use]
pub fn start_line_after(server: &Path, folder: &Path) -> String {
    let defaults = match folder.join(CONFIG_FILE) {
        config if config.exists() => format!("--defaults-file={}", config.display()),
        _ => "--no-defaults".to_owned(),
    };
    let (server, folder) = (server.display(), folder.display());
    format!("{server} {defaults} --datadir={folder} --socket={folder}/mysqld.sock")
}

/// How a person starts the restored server by hand, inside the fence.
#[must_use]
pub fn start_line(server: &Path, folder: &Path) -> String {
    let (server, folder) = (server.display(), folder.display());
    format!("{server} --defaults-file={folder}/{FENCE_FILE} --datadir={folder} --socket={folder}/mysqld.sock")
}
