//! What rows were before they changed, kept by the server while net change is applied.
//!
//! InnoDB keeps older versions of rows and deleted keys for whoever may still read them, and takes them away (purge) on
//! threads of its own as soon as nobody can. For each row of net change that is as much work as a third of applying it, and
//! it would be done on the processors that apply the next rows. A view that is held while windows are applied puts it
//! off until the replay is over: the restored server does it beside its first work, as any server does.
//!
//! What is put off lies in the undo logs, so it is bounded: behind [`HELD_BYTES`] of rows the view is taken anew. It is let
//! go before anything else than net change runs: nobody knows how many rows a statement changes, and whoever looks
//! through a table, or for a unique value that is used again and again, walks over all that is not purged.
//!
//! A view only saves time: without a connection for it the replay goes on.

use holdfast_mysql::Conn;

use crate::error::Error;
use crate::serial;

/// Bytes of rows, about, whose older versions are kept at most. Undo tablespaces grow with them, and MariaDB's do not shrink.
const HELD_BYTES: u64 = 256 << 20;

/// What is to be done about the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Leave,
    /// A view of the server as it is, in place of the one before if there is one.
    Take,
    /// None any more.
    LetGo,
}

/// When there is a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// There may be one at all.
    allowed: bool,
    /// Bytes of rows that were applied since it was taken; `None`: there is none.
    bytes: Option<u64>,
}

impl Held {
    /// So many bytes of rows are about to be applied, as net change alone or not.
    fn before(&mut self, bytes: u64, net_alone: bool) -> Step {
        if !self.allowed {
            return Step::Leave;
        }
        if !net_alone {
            return self.end();
        }
        let all = self.bytes.map(|held| held.saturating_add(bytes)).filter(|all| *all <= HELD_BYTES);
        self.bytes = Some(all.unwrap_or(bytes));
        if all.is_some() { Step::Leave } else { Step::Take }
    }

    /// Something else is about to run.
    fn end(&mut self) -> Step {
        if self.bytes.take().is_some() { Step::LetGo } else { Step::Leave }
    }
}

/// A view on the server, held on a connection of its own from the first window on.
#[derive(Debug)]
pub(crate) struct History {
    held: Held,
    conn: Option<Conn>,
}

impl History {
    /// Without a view so far. Not `allowed`: there will be none.
    pub(crate) fn new(allowed: bool) -> Self {
        Self { held: Held { allowed, bytes: None }, conn: None }
    }

    /// So many bytes of rows are about to be applied: `net_alone`, or with rows in the order of the log among them. Gives
    /// what it goes on without, the first time.
    pub(crate) fn applies(
        &mut self,
        bytes: u64,
        net_alone: bool,
        connect: impl FnOnce() -> Result<Conn, Error>,
    ) -> Option<String> {
        let step = self.held.before(bytes, net_alone);
        self.step(step, connect)
    }

    /// Something else than net change is about to run: the view is let go. Gives what it goes on without, the first time.
    pub(crate) fn let_go(&mut self) -> Option<String> {
        let step = self.held.end();
        self.step(step, || Err(Error::Connect("there is none".into())))
    }

    fn step(&mut self, step: Step, connect: impl FnOnce() -> Result<Conn, Error>) -> Option<String> {
        let done = match step {
            Step::Leave => Ok(()),
            Step::Take => self.take(connect),
            Step::LetGo => self.run("ROLLBACK"),
        };
        let error = done.err()?;
        // The server ends the view with its connection.
        *self = Self::new(false);
        Some(format!("it goes on without a view that puts off the purge of old rows, since {error}"))
    }

    fn take(&mut self, connect: impl FnOnce() -> Result<Conn, Error>) -> Result<(), Error> {
        if self.conn.is_none() {
            let mut conn = connect()?;
            serial::prepare(&mut conn)?;
            // The server's default for a replay has no views that last.
            conn.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                .map_err(Error::server("preparing the session"))?;
            self.conn = Some(conn);
        }
        self.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    }

    fn run(&mut self, statement: &str) -> Result<(), Error> {
        let Some(conn) = &mut self.conn else { return Ok(()) };
        conn.execute(statement).map(|_| ()).map_err(Error::server("changing the view of the rows"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_held_while_nothing_but_net_change_is_applied_and_for_so_many_bytes() {
        let mut held = Held { allowed: true, bytes: None };
        assert_eq!(held.end(), Step::Leave, "no view before the first window");
        assert_eq!(held.before(HELD_BYTES / 2, true), Step::Take);
        assert_eq!(held.before(HELD_BYTES / 2, true), Step::Leave);
        assert_eq!(held.before(1, true), Step::Take, "too much is kept");
        assert_eq!(held.before(HELD_BYTES - 1, true), Step::Leave);
        assert_eq!(held.end(), Step::LetGo);
        assert_eq!(held.end(), Step::Leave);
        assert_eq!(held.before(1, false), Step::Leave, "rows in order");
        assert_eq!(held.before(1, true), Step::Take);
        assert_eq!(held.before(1, false), Step::LetGo, "rows in order");
        assert_eq!(held.before(u64::MAX, true), Step::Take);
        assert_eq!(held.before(1, true), Step::Take);
    }

    #[test]
    fn without_a_connection_there_is_no_view_and_that_is_said_once() {
        let mut history = History::new(true);
        let refused = || Err(Error::Connect("too many".into()));
        let told = history.applies(1, true, refused).unwrap();
        assert!(told.contains("too many"), "{told}");
        let asked = || panic!("it asks again");
        assert_eq!(history.applies(1, true, asked), None);
        assert_eq!(history.let_go(), None);
        let mut ordered = History::new(false);
        assert_eq!(ordered.applies(1, true, asked), None);
    }
}
