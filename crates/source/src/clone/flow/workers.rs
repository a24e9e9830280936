//! The connections beside the master's: each joins, reads its share, and leaves.

use std::time::Duration;

use holdfast_mysql::Conn;
use holdfast_mysql::clone::CloneConn;
use holdfast_mysql::clone::descriptor::State;
use holdfast_mysql::clone::rpc::{Command, Response};

use super::{Agreed, Flow, lock, unexpected};
use crate::clone::stream::{Said, Stream};
use crate::error::Error;
use crate::outcome::Warning;

/// A worker hears nothing while the donor changes its stage; that the master is alive is enough.
const WORKER_SILENCE_MAX: Duration = Duration::from_secs(2 * 3600);

/// A worker came after the clone's end.
const ERROR_NO_SUCH_CLONE: u16 = 1815;

impl Flow<'_> {
    /// A worker: joins, reads its share, leaves. Not to be let in is no failure of the copy.
    pub(super) fn worker(&self, agreed: &Agreed) -> Result<(), Error> {
        let mut conn = match self.attach(agreed) {
            Ok(conn) => conn,
            Err(error) => {
                if matches!(error, Error::Cancelled) {
                    self.stages.stay_out();
                    return Err(error);
                }
                self.one_less(&error);
                return Ok(());
            }
        };
        self.stages.join();
        conn.send(&Command::Execute)?;
        let mut stream = Stream::default();
        loop {
            let message = self.receive(&mut conn)?;
            let over = self.take_as_worker(stream.take(message.response()?)?)?;
            conn.recycle(message);
            if over {
                break;
            }
        }
        let _ = conn.exit().and_then(Conn::close);
        Ok(())
    }

    /// A worker that does not take part.
    pub(super) fn one_less(&self, why: &Error) {
        self.stages.stay_out();
        if !matches!(why, Error::Server(e) if e.code() == Some(ERROR_NO_SUCH_CLONE)) {
            let text = format!("one connection less than wanted carried the copy: {why}");
            lock(&self.notes).push(Warning::Note(text));
        }
    }

    fn attach(&self, agreed: &Agreed) -> Result<CloneConn, Error> {
        // Logged in while the donor prepares, so that joining is one round trip.
        let mut conn = self.enter()?;
        conn.set_read_timeout(WORKER_SILENCE_MAX);
        self.stages.wait_files_known()?;
        let (version, ddl) = (agreed.version, agreed.ddl);
        conn.send(&Command::Attach { version, ddl, locators: &agreed.locators })?;
        loop {
            let message = conn.receive()?;
            match message.response()? {
                Response::Complete => return Ok(conn),
                Response::Locators { .. } => {}
                other => return Err(unexpected("the answer to a worker that joins", &other)),
            }
        }
    }

    fn take_as_worker(&self, said: Said<'_>) -> Result<bool, Error> {
        match said {
            Said::Over => return Ok(true),
            Said::Begins(state) => self.stages.wait_open(state.state)?,
            Said::Ends(state) => self.stages.end(state.state)?,
            Said::Bytes(data, bytes) => {
                self.stages.wait_open(data.state)?;
                self.keep(&data, bytes)?;
            }
            // Redo files, which the master has told too. Data files come by the master only.
            Said::File(file) if file.state == State::RedoCopy => {
                self.stages.wait_open(State::RedoCopy)?;
                self.files.announce(&file)?;
            }
            Said::File(_) | Said::Nothing => {}
        }
        Ok(false)
    }
}
