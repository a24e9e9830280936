//! A connection in clone mode.

use std::time::Duration;

use super::rpc::{Command, Response, has_clone};
use crate::conn::{Conn, Interrupter};
use crate::error::{Error, Result, ServerError};
use crate::version::ServerVersion;

const COM_CLONE: u8 = 32;

/// Longest packet of the donor: a block of 64 pages of 64 KiB is 4 MiB; locators are smaller.
const CLONE_PACKET_MAX: u64 = 16 << 20;

/// One packet of the donor, owned, so that its file bytes can travel on without a copy.
#[derive(Debug)]
pub struct Message {
    payload: Vec<u8>,
}

impl Message {
    /// What it says. `Failed` never comes: `CloneConn::receive` makes it an error.
    pub fn response(&self) -> Result<Response<'_>> {
        Response::parse(&self.payload)
    }
}

/// A connection that speaks clone commands until `exit`.
#[derive(Debug)]
pub struct CloneConn {
    conn: Conn,
}

impl CloneConn {
    /// Sends `COM_CLONE`. The account needs `BACKUP_ADMIN` (error 1227) and the server the plugin `clone` (error 1524).
    pub fn enter(mut conn: Conn) -> Result<Self> {
        if !has_clone(conn.server()) {
            return Err(Error::Unsupported {
                endpoint: conn.endpoint().to_owned(),
                version: conn.server().to_string(),
                reason: "the clone plugin came with MySQL 8.0.17".to_owned(),
            });
        }
        conn.simple(COM_CLONE, &[], "entering clone mode")?;
        conn.enter_exchange(CLONE_PACKET_MAX);
        Ok(Self { conn })
    }

    /// The server's version.
    #[must_use]
    pub fn server(&self) -> &ServerVersion {
        self.conn.server()
    }

    /// Host and port, or the socket's path.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.conn.endpoint()
    }

    /// The connection's id on the donor, for KILL.
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.conn.thread_id()
    }

    /// True under TLS; a donor with encrypted tablespaces insists on it.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.conn.is_tls()
    }

    /// Sets the longest silence of the donor that is borne. It gives signs of life about every 5 s on the master
    /// connection; the answer to `Init` may take as long as the DDL lock, and opening all tablespaces after it.
    pub fn set_read_timeout(&mut self, limit: Duration) {
        self.conn.set_read_timeout(limit);
    }

    /// A handle with which another thread can cut this connection off.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.conn.interrupter()
    }

    /// Sends a command.
    pub fn send(&mut self, command: &Command<'_>) -> Result<()> {
        self.conn.restart_sequence();
        self.conn.write_packet(&command.encode(), "sending a clone command")
    }

    /// The donor's next packet. Its errors become `Error::Server`; after one the donor ends the command.
    pub fn receive(&mut self) -> Result<Message> {
        self.conn.restart_sequence();
        let payload = self.conn.read_packet("waiting for the clone's donor")?;
        match payload.first() {
            // A classic ERR packet: killed, or shut down.
            Some(0xff) => return Err(Error::Server(crate::response::parse_err(&payload)?)),
            Some(&super::rpc::RES_ERROR) => {
                if let Response::Failed { code, message } = Response::parse(&payload)? {
                    return Err(Error::Server(ServerError {
                        code: u16::try_from(code).unwrap_or(u16::MAX),
                        sqlstate: "HY000".to_owned(),
                        message: String::from_utf8_lossy(message).into_owned(),
                    }));
                }
            }
            _ => {}
        }
        Ok(Message { payload })
    }

    /// Gives a message's memory back for the next one.
    pub fn recycle(&mut self, message: Message) {
        self.conn.recycle(message.payload);
    }

    /// Sends a command that `Complete` answers at once, such as an ACK.
    pub fn call(&mut self, command: &Command<'_>) -> Result<()> {
        self.send(command)?;
        match self.receive()?.response()? {
            Response::Complete => Ok(()),
            other => Err(Error::protocol("a clone command's answer", "COMPLETE", format!("{other:?}"))),
        }
    }

    /// Leaves clone mode and gives back an ordinary connection with a new session.
    pub fn exit(mut self) -> Result<Conn> {
        self.call(&Command::Exit)?;
        self.conn.leave_exchange();
        self.conn.reset()?;
        Ok(self.conn)
    }
}
