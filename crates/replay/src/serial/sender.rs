//! Sends the rows of a batch, and says where in the log they stood when the server refuses them.

use holdfast_mysql::Conn;

use crate::batch;
use crate::error::Error;
use crate::log::EventPlace;

/// Sends BINLOG statements.
pub(super) struct Sender<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) place: &'a EventPlace,
    pub(super) since: &'a EventPlace,
    pub(super) packet_max: u64,
}

/// What can happen while rows are cut and sent.
pub(super) enum SendError {
    Flaw(holdfast_binlog::Flaw),
    Other(Error),
}

impl From<holdfast_binlog::Flaw> for SendError {
    fn from(flaw: holdfast_binlog::Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl SendError {
    pub(super) fn into_error(self, place: &EventPlace) -> Error {
        match self {
            Self::Flaw(flaw) => Error::Encode { place: place.clone(), flaw },
            Self::Other(error) => error,
        }
    }
}

impl Sender<'_> {
    pub(super) fn send(&mut self, events: &[u8]) -> Result<(), SendError> {
        let statement = batch::statement(events);
        // One byte of command stands before the text.
        let needed = statement.len() as u64 + 1;
        if needed > self.packet_max {
            let (place, limit) = (self.place.clone(), self.packet_max);
            return Err(SendError::Other(Error::RowTooLong { place, needed, limit }));
        }
        match self.conn.execute(statement) {
            Ok(_) => Ok(()),
            Err(source @ holdfast_mysql::Error::Server(_)) => Err(SendError::Other(Error::Diverged {
                what: format!("a change of rows between {} and the event", self.since),
                place: self.place.clone(),
                source: Box::new(source),
            })),
            Err(source) => Err(SendError::Other(Error::server("applying rows")(source))),
        }
    }
}
