//! A connection: logs in, sends statements, reads results. Blocking, with a deadline on every wait.
//!
//! Drives the sans-I/O parts (`packet`, `handshake`, `auth`, `response`, `resultset`) over a `Transport` and knows
//! nothing else of the world. `dump` and `clone` build on it.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Channel, Exchange, KeyTrust, Step, Stop};
use crate::capabilities::{SSL, STATUS_IN_TRANSACTION, STATUS_MORE_RESULTS, STATUS_NO_BACKSLASH_ESCAPES};
use crate::credentials::read_bounded;
use crate::error::{Error, Result};
use crate::handshake::{self, Greeting};
use crate::options::{ConnectOptions, Endpoint, PublicKey, TlsMode};
use crate::packet::{self, Assembler, PACKET_BYTES_MAX, Packet};
use crate::response::{OkPacket, is_eof, parse_eof, parse_err, parse_ok};
use crate::resultset::{COLUMNS_MAX, Column, ResultSet, RowRef};
use crate::tls;
use crate::transport::{Deadline, Socket, Transport};
use crate::version::ServerVersion;
use crate::wire::Reader;

/// A result that `query` keeps in memory whole; larger ones go through `query_each`.
pub const RESULT_BYTES_MAX: u64 = 256 << 20;

/// Packets of the login: certificates aside, nothing there is longer than a PEM key.
const LOGIN_PACKET_MAX: u64 = 64 << 10;

/// Rounds of the login. A server needs at most: switch, more data, key, OK.
const LOGIN_ROUNDS_MAX: u32 = 16;

/// Bytes of a file for LOAD DATA in a packet: fewer than any server's `max_allowed_packet`.
const LOCAL_PART_BYTES: usize = 64 << 10;

pub(crate) const COM_QUIT: u8 = 1;
pub(crate) const COM_QUERY: u8 = 3;
pub(crate) const COM_PING: u8 = 14;
pub(crate) const COM_RESET_CONNECTION: u8 = 31;

/// What a statement without rows did. Of several results: sums, and the last insert id that was not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Rows changed.
    pub affected: u64,
    /// First `AUTO_INCREMENT` value given, or 0.
    pub last_insert_id: u64,
    /// Warnings.
    pub warnings: u64,
}

/// Cuts a connection off from another thread: its waits end with an error at once.
#[derive(Debug, Clone)]
pub struct Interrupter(Arc<Socket>);

impl Interrupter {
    /// Shuts the socket down in both directions.
    pub fn interrupt(&self) {
        // It may be closed already, which is what was wanted.
        let _ = self.0.shutdown();
    }
}

/// A connection to one server.
#[derive(Debug)]
pub struct Conn {
    pub(crate) transport: Transport,
    assembler: Assembler,
    seq: u8,
    greeting: Greeting,
    user: String,
    status: u16,
    read_timeout: Duration,
    write_timeout: Duration,
    /// Set while an answer is due. A call that finds it set meets a connection out of step.
    busy: bool,
}

/// The payload of a packet that came.
#[derive(Debug)]
pub(crate) enum PacketHere {
    /// The last bytes that the transport's buffer gave away, so many.
    InPlace(usize),
    /// It came in pieces.
    Own(Vec<u8>),
}

impl Conn {
    /// Connects and logs in.
    pub fn connect(options: &ConnectOptions) -> Result<Self> {
        let mut transport = Transport::connect(&options.endpoint, options.connect_timeout)?;
        let mut assembler = Assembler::new(LOGIN_PACKET_MAX);
        let deadline = Deadline::after(options.connect_timeout);
        let first = read_whole(&mut transport, &mut assembler, deadline, "waiting for the greeting")?;
        let greeting = Greeting::parse(&first.payload)?;
        let mut conn = Self {
            transport,
            assembler,
            seq: first.last_seq.wrapping_add(1),
            status: greeting.status,
            greeting,
            user: options.user.clone(),
            read_timeout: options.connect_timeout.max(options.read_timeout),
            write_timeout: options.write_timeout,
            busy: true,
        };
        conn.start_tls(options)?;
        conn.log_in(options)?;
        conn.read_timeout = options.read_timeout;
        conn.assembler.set_limit(PACKET_BYTES_MAX);
        conn.busy = false;
        Ok(conn)
    }

    fn start_tls(&mut self, options: &ConnectOptions) -> Result<()> {
        let offered = self.greeting.capabilities & SSL != 0;
        let local = matches!(options.endpoint, Endpoint::Unix(_));
        match options.tls.mode {
            TlsMode::Disabled => return Ok(()),
            TlsMode::Preferred if local || !offered => return Ok(()),
            _ if !offered => {
                return Err(Error::Tls {
                    endpoint: self.transport.endpoint().to_owned(),
                    reason: "the server offers none; give it a certificate (ssl_cert, ssl_key) or ask for \
                             less with tls = \"preferred\""
                        .to_owned(),
                });
            }
            _ => {}
        }
        let host = match &options.endpoint {
            Endpoint::Tcp { host, .. } => host.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let session = tls::session(&options.tls, host, self.transport.endpoint())?;
        let capabilities = handshake::client_capabilities(self.greeting.capabilities, options, true);
        self.write_packet(&handshake::ssl_request(capabilities), "asking for TLS")?;
        self.transport.start_tls(session, Deadline::after(options.connect_timeout))
    }

    fn log_in(&mut self, options: &ConnectOptions) -> Result<()> {
        let channel =
            Channel { tls: self.transport.is_tls(), local: matches!(options.endpoint, Endpoint::Unix(_)) };
        let (exchange, plugin, answer) = Exchange::begin(
            options.password.as_ref(),
            channel,
            &self.greeting.auth_plugin,
            &self.greeting.nonce,
        );
        let mut exchange = exchange.trusting(match &options.public_key {
            PublicKey::None => KeyTrust::None,
            PublicKey::AsSent => KeyTrust::AsSent,
            PublicKey::File(path) => KeyTrust::Pem(read_bounded(path, LOGIN_PACKET_MAX)?),
        });
        let capabilities =
            handshake::client_capabilities(self.greeting.capabilities, options, self.transport.is_tls());
        self.write_packet(&handshake::response(capabilities, options, plugin, &answer), "logging in")?;
        for _ in 0..LOGIN_ROUNDS_MAX {
            let packet = self.read_packet("logging in")?;
            match exchange.receive(&packet) {
                Ok(Step::Done(ok)) => {
                    self.status = ok.status;
                    return Ok(());
                }
                Ok(Step::Send(answer)) => self.write_packet(&answer, "logging in")?,
                Ok(Step::Read) => {}
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Reason(reason)) => {
                    return Err(Error::Auth {
                        endpoint: self.transport.endpoint().to_owned(),
                        user: self.user.clone(),
                        reason,
                    });
                }
            }
        }
        Err(Error::protocol("the authentication", "an end", format!("{LOGIN_ROUNDS_MAX} rounds")))
    }

    /// The server's version.
    #[must_use]
    pub fn server(&self) -> &ServerVersion {
        &self.greeting.version
    }

    /// The connection's id in the server's lists of sessions.
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.greeting.thread_id
    }

    /// True if the bytes travel under TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }

    /// True if the last answer told of an open transaction.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.status & STATUS_IN_TRANSACTION != 0
    }

    /// True if the last answer told that `sql_mode` holds NO_BACKSLASH_ESCAPES.
    #[must_use]
    pub fn no_backslash_escapes(&self) -> bool {
        self.status & STATUS_NO_BACKSLASH_ESCAPES != 0
    }

    /// Host and port, or the socket's path.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.transport.endpoint()
    }

    /// Sets the longest silence of the server that is borne; for statements that take their time.
    pub fn set_read_timeout(&mut self, limit: Duration) {
        self.read_timeout = limit;
    }

    /// The longest silence that is borne now.
    #[must_use]
    pub fn read_timeout(&self) -> Duration {
        self.read_timeout
    }

    /// A handle with which another thread can cut this connection off.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(self.transport.socket())
    }

    /// Runs a statement and keeps its first result, at most `RESULT_BYTES_MAX` of it; later ones are read and dropped.
    pub fn query(&mut self, sql: impl AsRef<[u8]>) -> Result<ResultSet> {
        let mut kept = ResultSet::default();
        let mut bytes = 0u64;
        let mut result_no = 0u32;
        self.run(sql.as_ref(), &mut |event| {
            match event {
                ResultEvent::Columns(columns) => {
                    result_no += 1;
                    if result_no == 1 {
                        kept.columns = columns.to_vec();
                    }
                }
                ResultEvent::Row(row) if result_no == 1 => {
                    bytes += row.values().iter().map(|v| 24 + v.map_or(0, <[u8]>::len) as u64).sum::<u64>();
                    if bytes > RESULT_BYTES_MAX {
                        return Err(Error::TooLarge {
                            what: "a result",
                            got: bytes,
                            limit: RESULT_BYTES_MAX,
                        });
                    }
                    kept.rows.push(row.values().iter().map(|v| v.map(<[u8]>::to_vec)).collect());
                }
                ResultEvent::Row(_) => {}
            }
            Ok(())
        })?;
        Ok(kept)
    }

    /// The first value of the first row as text; `None` without a row or for NULL.
    pub fn query_text(&mut self, sql: impl AsRef<[u8]>) -> Result<Option<String>> {
        self.query(sql).map(|result| result.text(0, 0))
    }

    /// Runs a statement and hands each row of each result to `each`. An error of `each` leaves the connection
    /// unusable, because the rest of the rows is still on the way.
    pub fn query_each<E: From<Error>>(
        &mut self,
        sql: impl AsRef<[u8]>,
        mut each: impl FnMut(&RowRef<'_>) -> Result<(), E>,
    ) -> Result<Done, E> {
        self.run(sql.as_ref(), &mut |event| match event {
            ResultEvent::Columns(_) => Ok(()),
            ResultEvent::Row(row) => each(row),
        })
    }

    /// Runs statements for what they do; rows are read and dropped.
    pub fn execute(&mut self, sql: impl AsRef<[u8]>) -> Result<Done> {
        self.run(sql.as_ref(), &mut |_| Ok::<(), Error>(()))
    }

    /// Runs a LOAD DATA LOCAL statement, whose file is `file`, whatever name the statement has. Gives what it did, and the
    /// number of rows that it skipped, if the server says it.
    ///
    /// # Errors
    /// As [`Self::execute`]; the server's `local_infile` must be on. A statement that asks for no file leaves the
    /// connection unusable.
    pub fn load(&mut self, sql: impl AsRef<[u8]>, file: &[u8]) -> Result<(Done, Option<u64>)> {
        self.start_command(COM_QUERY, sql.as_ref(), "sending a statement")?;
        let packet = self.read_packet("waiting for the server to ask for a file")?;
        match packet.first() {
            Some(0xfb) => {}
            Some(0xff) => return Err(self.server_error(&packet)),
            head => {
                return Err(Error::protocol(
                    "LOAD DATA LOCAL",
                    "a request for a file",
                    format!("{head:02x?}"),
                ));
            }
        }
        for part in file.chunks(LOCAL_PART_BYTES) {
            self.write_packet(part, "sending a file")?;
        }
        self.write_packet(&[], "ending a file")?;
        let packet = self.read_packet("waiting for a statement's result")?;
        let ok = self.expect_ok(&packet)?;
        if ok.status & STATUS_MORE_RESULTS != 0 {
            return Err(Error::protocol("LOAD DATA LOCAL", "one result", "more"));
        }
        self.busy = false;
        let done =
            Done { affected: ok.affected, last_insert_id: ok.last_insert_id, warnings: ok.warnings.into() };
        Ok((done, skipped(&packet)))
    }

    /// Asks whether the server is there.
    pub fn ping(&mut self) -> Result<()> {
        self.simple(COM_PING, &[], "pinging").map(drop)
    }

    /// Makes the session new: variables, temporary tables, locks. Needs MySQL 5.7.3 or MariaDB 10.2.
    pub fn reset(&mut self) -> Result<()> {
        self.simple(COM_RESET_CONNECTION, &[], "resetting the session").map(drop)
    }

    /// Says goodbye and closes.
    pub fn close(mut self) -> Result<()> {
        self.start_command(COM_QUIT, &[], "saying goodbye")
    }

    /// A command that OK answers.
    pub(crate) fn simple(&mut self, command: u8, body: &[u8], doing: &'static str) -> Result<OkPacket> {
        self.start_command(command, body, doing)?;
        let packet = self.read_packet(doing)?;
        let ok = self.expect_ok(&packet)?;
        self.busy = false;
        Ok(ok)
    }

    fn expect_ok(&mut self, packet: &[u8]) -> Result<OkPacket> {
        if packet.first() == Some(&0xff) {
            return Err(self.server_error(packet));
        }
        let ok = parse_ok(packet)?;
        self.status = ok.status;
        Ok(ok)
    }

    /// The error of an ERR packet; it ends the answer, so the connection is in step again.
    pub(crate) fn server_error(&mut self, packet: &[u8]) -> Error {
        match parse_err(packet) {
            Ok(error) => {
                self.busy = false;
                Error::Server(error)
            }
            Err(error) => error,
        }
    }

    pub(crate) fn start_command(&mut self, command: u8, body: &[u8], doing: &'static str) -> Result<()> {
        if self.busy {
            return Err(Error::Poisoned { endpoint: self.transport.endpoint().to_owned() });
        }
        self.busy = true;
        self.seq = 0;
        let mut payload = Vec::with_capacity(body.len() + 1);
        payload.push(command);
        payload.extend_from_slice(body);
        self.write_packet(&payload, doing)
    }

    fn run<E: From<Error>>(
        &mut self,
        sql: &[u8],
        each: &mut dyn FnMut(ResultEvent<'_>) -> Result<(), E>,
    ) -> Result<Done, E> {
        self.start_command(COM_QUERY, sql, "sending a statement")?;
        let mut done = Done::default();
        loop {
            let packet = self.read_packet("waiting for a statement's result")?;
            let ok = match packet.first() {
                Some(0x00) => self.expect_ok(&packet)?,
                Some(0xff) => return Err(self.server_error(&packet).into()),
                Some(0xfb) => {
                    return Err(Error::protocol(
                        "a result",
                        "rows or OK",
                        "a request for a local file, which was not offered",
                    )
                    .into());
                }
                _ => self.read_rows(&packet, each)?,
            };
            self.status = ok.status;
            done.affected = done.affected.saturating_add(ok.affected);
            done.warnings += u64::from(ok.warnings);
            if ok.last_insert_id != 0 {
                done.last_insert_id = ok.last_insert_id;
            }
            if ok.status & STATUS_MORE_RESULTS == 0 {
                self.busy = false;
                return Ok(done);
            }
        }
    }

    fn read_rows<E: From<Error>>(
        &mut self,
        head: &[u8],
        each: &mut dyn FnMut(ResultEvent<'_>) -> Result<(), E>,
    ) -> Result<OkPacket, E> {
        let doing = "reading a result";
        let count = Reader::new("a result's head", head).lenenc()?;
        if count > COLUMNS_MAX {
            return Err(Error::TooLarge {
                what: "a result's number of columns",
                got: count,
                limit: COLUMNS_MAX,
            }
            .into());
        }
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(Column::parse(&self.read_packet(doing)?)?);
        }
        let end = self.read_packet(doing)?;
        if !is_eof(&end) {
            return Err(Error::protocol(
                "a result",
                "EOF after the columns",
                format!("{:02x?}", end.first()),
            )
            .into());
        }
        each(ResultEvent::Columns(&columns))?;
        loop {
            let packet = self.read_packet(doing)?;
            if is_eof(&packet) {
                return Ok(parse_eof(&packet)?);
            }
            if packet.first() == Some(&0xff) {
                return Err(self.server_error(&packet).into());
            }
            each(ResultEvent::Row(&RowRef::parse(&columns, &packet)?))?;
            self.assembler.recycle(packet);
        }
    }

    /// The next packet's payload; its number must be the expected one.
    pub(crate) fn read_packet(&mut self, doing: &'static str) -> Result<Vec<u8>> {
        self.read_packet_until(None, doing)
    }

    /// As `read_packet`, with an end of waiting instead of a limit on silence. If it passes, the call can be repeated.
    pub(crate) fn read_packet_until(
        &mut self,
        until: Option<Deadline>,
        doing: &'static str,
    ) -> Result<Vec<u8>> {
        let packet = self.read_any(until, doing)?;
        self.in_order(packet)
    }

    /// The payload of the packet that is due.
    fn in_order(&mut self, packet: Packet) -> Result<Vec<u8>> {
        self.is_due(packet.first_seq, packet.last_seq, packet.payload.first().copied())?;
        Ok(packet.payload)
    }

    /// Is a packet of these numbers the one that is due?
    fn is_due(&mut self, first_seq: u8, last_seq: u8, first_byte: Option<u8>) -> Result<()> {
        // A server that ends a session by itself (shutdown, kill, inactivity) numbers its ERR packet as it likes.
        if first_seq != self.seq && first_byte != Some(0xff) {
            return Err(Error::protocol(
                "the order of packets",
                format!("number {}", self.seq),
                format!("{first_seq}"),
            ));
        }
        self.seq = last_seq.wrapping_add(1);
        Ok(())
    }

    /// The next packet's payload if it is here whole; never waits.
    pub(crate) fn packet_here(&mut self, doing: &'static str) -> Result<Option<PacketHere>> {
        while self.transport.advance(doing)? {
            if let Some(len) = self.step_over()? {
                return Ok(Some(PacketHere::InPlace(len)));
            }
            if let Some(packet) = self.take_buffered()? {
                return self.in_order(packet).map(PacketHere::Own).map(Some);
            }
        }
        Ok(None)
    }

    /// Consumes the next packet where it lies, if all of it is in the buffer; gives the length of its payload.
    fn step_over(&mut self) -> Result<Option<usize>> {
        if !self.assembler.is_idle() {
            return Ok(None);
        }
        let Some((seq, payload)) = packet::whole(self.transport.buffered()) else { return Ok(None) };
        let (len, first_byte) = (payload.len(), payload.first().copied());
        if len as u64 > self.assembler.limit() {
            return Ok(None);
        }
        self.is_due(seq, seq, first_byte)?;
        self.transport.consume(packet::HEADER_LEN + len);
        Ok(Some(len))
    }

    fn take_buffered(&mut self) -> Result<Option<Packet>> {
        let (taken, packet) = self.assembler.feed(self.transport.buffered())?;
        self.transport.consume(taken);
        Ok(packet)
    }

    fn read_any(&mut self, until: Option<Deadline>, doing: &'static str) -> Result<Packet> {
        loop {
            if let Some(packet) = self.take_buffered()? {
                return Ok(packet);
            }
            let deadline = until.unwrap_or_else(|| Deadline::after(self.read_timeout));
            self.transport.fill(deadline, doing)?;
        }
    }

    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        self.assembler.recycle(buffer);
    }

    /// The session leaves SQL for another dialogue (clone, dump), so no command may be sent, nor a goodbye.
    pub(crate) fn enter_exchange(&mut self, packet_max: u64) {
        self.busy = true;
        self.assembler.set_limit(packet_max);
    }

    /// The session is back in SQL.
    pub(crate) fn leave_exchange(&mut self) {
        self.busy = false;
        self.assembler.set_limit(PACKET_BYTES_MAX);
    }

    /// The next packet, of either side, has number 0.
    pub(crate) fn restart_sequence(&mut self) {
        self.seq = 0;
    }

    /// The server's next packet has this number.
    pub(crate) fn expect_sequence(&mut self, number: u8) {
        self.seq = number;
    }

    /// The longest that a write may take.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.write_timeout
    }

    pub(crate) fn write_packet(&mut self, payload: &[u8], doing: &'static str) -> Result<()> {
        let mut frames = Vec::with_capacity(payload.len() + 8);
        self.seq = packet::encode(payload, self.seq, &mut frames);
        self.transport.write_all(&frames, self.write_timeout, doing)
    }
}

/// The number in "Records: 3  Deleted: 0  Skipped: 1  Warnings: 1", which an OK packet has behind its fixed part.
fn skipped(packet: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(packet);
    let (_, rest) = text.split_once("Skipped: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Drop for Conn {
    fn drop(&mut self) {
        if !self.busy {
            // Without a goodbye the server counts an aborted client and may log a warning. Nobody waits for it.
            self.write_timeout = Duration::from_millis(100);
            let _ = self.start_command(COM_QUIT, &[], "saying goodbye");
        }
    }
}

enum ResultEvent<'a> {
    Columns(&'a [Column]),
    Row(&'a RowRef<'a>),
}

fn read_whole(
    transport: &mut Transport,
    assembler: &mut Assembler,
    deadline: Deadline,
    doing: &'static str,
) -> Result<Packet> {
    loop {
        let (taken, packet) = assembler.feed(transport.buffered())?;
        transport.consume(taken);
        if let Some(packet) = packet {
            return Ok(packet);
        }
        transport.fill(deadline, doing)?;
    }
}
