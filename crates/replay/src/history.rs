//! What rows were before they changed, kept by the server for as long as rows are applied.
//!
//! InnoDB keeps older versions of rows and deleted keys for whoever may still read them, and takes them away (purge) on
//! threads of its own as soon as nobody can. For each row of net change that is as much work as a third of applying it, and
//! it would be done on the processors that apply the next rows. A view that is held from the start of the replay puts it
//! off until the replay is over: the restored server does it beside its first work, as any server does.
//! What is put off lies in the undo logs, so it is bounded: behind [`HELD_BYTES`] of rows the view is taken anew.

use holdfast_mysql::Conn;

use crate::error::Error;
use crate::serial;

/// Bytes of rows, about, whose older versions are kept at most. Undo tablespaces grow with them, and MariaDB's do not shrink.
const HELD_BYTES: u64 = 256 << 20;

/// A view on the server, held.
#[derive(Debug)]
pub(crate) struct History {
    conn: Conn,
    held: u64,
}

impl History {
    /// Takes a view on a connection of its own.
    ///
    /// # Errors
    /// The server fails.
    pub(crate) fn hold(mut conn: Conn) -> Result<Self, Error> {
        serial::prepare(&mut conn)?;
        let setup = Error::server("preparing the session");
        // The server's default for a replay has no views that last.
        conn.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").map_err(setup)?;
        let mut history = Self { conn, held: 0 };
        history.view()?;
        Ok(history)
    }

    /// So many bytes of rows are about to be applied.
    ///
    /// # Errors
    /// The server fails.
    pub(crate) fn applies(&mut self, bytes: u64) -> Result<(), Error> {
        let held = self.held.saturating_add(bytes);
        if held <= HELD_BYTES {
            self.held = held;
            return Ok(());
        }
        self.held = bytes;
        self.view()
    }

    /// A view of the server as it is, in place of the one before.
    fn view(&mut self) -> Result<(), Error> {
        let begun = self.conn.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
        begun.map(|_| ()).map_err(Error::server("taking a view of the rows"))
    }
}
