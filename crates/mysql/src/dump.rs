//! The binlog as a replica gets it: registration, the request for it, the events.
//!
//! Events are passed on exactly as they come, checksum included; nothing here reads more of them than their length.
//! Source: MySQL's documentation (`COM_REGISTER_SLAVE`, `COM_BINLOG_DUMP`, `COM_BINLOG_DUMP_GTID`) and MariaDB's
//! knowledge base ("Replication protocol").

use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::conn::{Conn, Interrupter};
use crate::error::{Error, Result, ServerError};
use crate::packet;
use crate::response::{is_eof, parse_err};
use crate::transport::Deadline;
use crate::version::{Flavor, ServerVersion};

mod driven;

pub use driven::Ready;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;

/// Dump flag: end the stream at the end of the log instead of waiting for more.
const NON_BLOCK: u16 = 1;

/// Dump flag of MariaDB: send ANNOTATE_ROWS events, too. Without it they are left out of the stream.
const SEND_ANNOTATE_ROWS: u16 = 2;

/// What a stream is doing, for its errors.
const DOING: &str = "following the binlog";

/// Length of an event's header.
const EVENT_HEADER_LEN: usize = 19;

/// Where an event's length stands in its header.
const EVENT_LEN_AT: usize = 9;

/// First byte of a packet's body when the source speaks semi-sync to us.
const SEMI_SYNC_MAGIC: u8 = 0xef;

/// That byte and the flags behind it.
const SEMI_SYNC_MARK_LEN: u64 = 2;

/// Longest event: the servers' ceiling of `max_allowed_packet` for replicas is 1 GiB; the rest is for headers.
pub const EVENT_BYTES_MAX: u64 = (1 << 30) + (1 << 20);

/// Error number of a source that can't serve what was asked for: purged, not there, or of another history.
pub const ER_SOURCE_FATAL_READING_BINLOG: u16 = 1236;

/// Where the stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpFrom {
    /// MySQL: after this set of transactions, in the server's binary form (`MySqlGtidSet::to_server_bytes`).
    Gtid(Vec<u8>),
    /// MariaDB: after this position, as text such as `0-1-100,7-2-5`.
    MariaDbGtid(String),
    /// At an offset of a file; 4 is the first event.
    Position {
        /// The file's name without a path.
        file: String,
        /// The offset in bytes, of an event's start. The protocol can say 4 GiB at most.
        offset: u64,
    },
}

/// How to ask for the stream.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// Our server id: not 0, and no other replica's, whose stream would be ended by ours.
    pub server_id: u32,
    /// A UUID of ours: MySQL ends the older stream of the same one, so that a reconnect leaves none behind.
    pub replica_uuid: Option<String>,
    /// After how long without events the source gives a sign of life.
    pub heartbeat: Duration,
    /// After how long without a sign of life the source is given up.
    pub silence_max: Duration,
    /// End at the end of the log instead of waiting for more.
    pub until_end: bool,
    /// Longest event that is taken.
    pub event_bytes_max: u64,
    /// Offer to be a semi-synchronous replica: a source that knows how marks the events whose receipt its commits wait
    /// for ([`EventBytes::awaits_word`]).
    pub semi_sync: bool,
}

impl DumpOptions {
    /// A stream that waits for more: heartbeat after 5 s, given up after 60 s.
    #[must_use]
    pub fn new(server_id: u32) -> Self {
        Self {
            server_id,
            replica_uuid: None,
            heartbeat: Duration::from_secs(5),
            silence_max: Duration::from_secs(60),
            until_end: false,
            event_bytes_max: EVENT_BYTES_MAX,
            semi_sync: false,
        }
    }
}

/// One event as it came, without the protocol's OK byte. At least a header long, and as long as the header says.
#[derive(Debug)]
pub struct EventBytes {
    payload: Vec<u8>,
    start: usize,
    awaits_word: bool,
}

impl EventBytes {
    /// Does a commit of the source wait until we have this event? Then [`BinlogStream::word`] is what to send.
    #[must_use]
    pub fn awaits_word(&self) -> bool {
        self.awaits_word
    }
}

impl Deref for EventBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.payload.get(self.start..).unwrap_or_default()
    }
}

/// What a wait for an event ended with.
#[derive(Debug)]
pub enum Next {
    /// An event. Heartbeats and the artificial rotate events come too.
    Event(EventBytes),
    /// The time passed; the stream goes on.
    Quiet,
    /// The end of the log (only with `until_end`), or the source ended the stream in order.
    End,
}

/// A stream of events.
#[derive(Debug)]
pub struct BinlogStream {
    conn: Conn,
    heard: Instant,
    silence_max: Duration,
    ended: bool,
    marks: Marks,
}

/// Whether the source puts the mark of semi-synchronous replication before each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    /// Not known before the first event. That is a made-up ROTATE, whose time is 0, so its first byte tells.
    Unknown,
    Yes,
    No,
}

impl Conn {
    /// Shows up in the source's list of replicas. `REPLICATION SLAVE` is needed.
    pub fn register_replica(&mut self, server_id: u32, name: &str) -> Result<()> {
        let mut body = server_id.to_le_bytes().to_vec();
        let name = name.as_bytes();
        let name = name.get(..name.len().min(60)).unwrap_or_default();
        body.push(name.len() as u8);
        body.extend_from_slice(name);
        // No user, no password, no port, no rank, no source: others have no business connecting to us.
        body.extend_from_slice(&[0; 12]);
        self.simple(COM_REGISTER_SLAVE, &body, "registering as a replica").map(drop)
    }

    /// Turns the connection into a stream of events. `register_replica` may come before.
    pub fn dump(mut self, from: &DumpFrom, options: &DumpOptions) -> Result<BinlogStream> {
        self.check_family(from)?;
        self.announce(from, options)?;
        let (command, body) = request(from, options, self.server().flavor)?;
        self.start_command(command, &body, "asking for the binlog")?;
        // More than the event: the OK byte, and the mark.
        self.enter_exchange(options.event_bytes_max.saturating_add(1 + SEMI_SYNC_MARK_LEN));
        let marks = if options.semi_sync { Marks::Unknown } else { Marks::No };
        let (heard, silence_max) = (Instant::now(), options.silence_max);
        Ok(BinlogStream { conn: self, heard, silence_max, ended: false, marks })
    }

    fn check_family(&self, from: &DumpFrom) -> Result<()> {
        let reason = match (from, self.server().flavor) {
            (DumpFrom::Gtid(_), Flavor::MariaDb) => "MariaDB takes a GTID position, not a MySQL GTID set",
            (DumpFrom::MariaDbGtid(_), Flavor::MySql) => "MySQL takes a GTID set, not a MariaDB position",
            _ => return Ok(()),
        };
        Err(Error::Unsupported {
            endpoint: self.endpoint().to_owned(),
            version: self.server().to_string(),
            reason: reason.to_owned(),
        })
    }

    /// Tells the source what kind of replica we are: user variables that it reads when the dump begins.
    fn announce(&mut self, from: &DumpFrom, options: &DumpOptions) -> Result<()> {
        let heartbeat_ns = options.heartbeat.as_nanos().min(u128::from(u32::MAX) * 1_000_000_000);
        // "We know checksums": then events keep the ones they have. Without it they are cut off, or refused.
        let mut sql =
            format!("SET @master_heartbeat_period = {heartbeat_ns}, @master_binlog_checksum = 'CRC32'");
        if options.semi_sync {
            sql += ", @rpl_semi_sync_slave = 1";
        }
        if self.server().flavor == Flavor::MySql {
            if options.semi_sync {
                sql += ", @rpl_semi_sync_replica = 1";
            }
            // The names since 8.0.26; older servers ignore them.
            sql += &format!(", @source_heartbeat_period = {heartbeat_ns}, @source_binlog_checksum = 'CRC32'");
            if let Some(uuid) = &options.replica_uuid {
                let uuid = plain_text("a replica UUID", uuid)?;
                sql += &format!(", @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'");
            }
        } else {
            // 4: GTIDs understood. A lower one makes the source rewrite events.
            sql += ", @mariadb_slave_capability = 4";
            if let DumpFrom::MariaDbGtid(position) = from {
                let position = plain_text("a MariaDB GTID position", position)?;
                // Strict: a GTID that the source does not have is an error, not a nearby start.
                sql += &format!(
                    ", @slave_connect_state = '{position}', @slave_gtid_strict_mode = 1, \
                     @slave_gtid_ignore_duplicates = 0"
                );
            }
        }
        self.execute(sql).map(drop)
    }
}

/// These texts go into SQL between quotes: only letters, digits and `-,:` belong there.
fn plain_text<'a>(what: &'static str, text: &'a str) -> Result<&'a str> {
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-,:".contains(*c))) {
        None => Ok(text),
        Some(c) => Err(Error::protocol(what, "letters, digits, `-`, `,` and `:`", format!("{c:?}"))),
    }
}

fn request(from: &DumpFrom, options: &DumpOptions, flavor: Flavor) -> Result<(u8, Vec<u8>)> {
    let mut flags = if options.until_end { NON_BLOCK } else { 0 };
    if flavor == Flavor::MariaDb {
        flags |= SEND_ANNOTATE_ROWS;
    }
    let mut body = Vec::new();
    match from {
        DumpFrom::Gtid(set) => {
            body.extend_from_slice(&flags.to_le_bytes());
            body.extend_from_slice(&options.server_id.to_le_bytes());
            // No file name; the position must be 4 then.
            body.extend_from_slice(&0u32.to_le_bytes());
            body.extend_from_slice(&4u64.to_le_bytes());
            body.extend_from_slice(&(set.len() as u32).to_le_bytes());
            body.extend_from_slice(set);
            Ok((COM_BINLOG_DUMP_GTID, body))
        }
        DumpFrom::MariaDbGtid(_) => Ok((COM_BINLOG_DUMP, position_body("", 4, flags, options.server_id))),
        DumpFrom::Position { file, offset } => {
            let Ok(offset) = u32::try_from(*offset) else {
                return Err(Error::TooLarge {
                    what: "an offset in a binlog (start by GTID instead)",
                    got: *offset,
                    limit: u64::from(u32::MAX),
                });
            };
            Ok((COM_BINLOG_DUMP, position_body(file, offset, flags, options.server_id)))
        }
    }
}

fn position_body(file: &str, offset: u32, flags: u16, server_id: u32) -> Vec<u8> {
    let mut body = offset.to_le_bytes().to_vec();
    body.extend_from_slice(&flags.to_le_bytes());
    body.extend_from_slice(&server_id.to_le_bytes());
    body.extend_from_slice(file.as_bytes());
    body
}

impl BinlogStream {
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

    /// A handle with which another thread can end the stream.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.conn.interrupter()
    }

    /// Waits for the next event until `until`. Errors of the source keep their numbers (1236: not there any more).
    /// After any error the stream is of no use.
    pub fn next_event(&mut self, until: Instant) -> Result<Next> {
        if self.ended {
            return Ok(Next::End);
        }
        let given_up = self.heard + self.silence_max;
        let deadline = Deadline { at: until.min(given_up), limit: self.silence_max };
        let payload = match self.conn.read_packet_until(Some(deadline), DOING) {
            Ok(payload) => payload,
            Err(error) if error.is_timeout() && Instant::now() < given_up => return Ok(Next::Quiet),
            Err(error) => return Err(error),
        };
        self.heard = Instant::now();
        match self.take_packet(payload)? {
            Some(event) => Ok(Next::Event(event)),
            None => Ok(Next::End),
        }
    }

    /// An event, or `None` at the end.
    fn take_packet(&mut self, payload: Vec<u8>) -> Result<Option<EventBytes>> {
        let found = find_event(&payload, &mut self.marks)?;
        self.settle(found);
        Ok(found.map(|Found { start, awaits_word }| EventBytes { payload, start, awaits_word }))
    }

    /// Goes on behind a packet.
    fn settle(&mut self, found: Option<Found>) {
        match found {
            // The source begins to count anew behind an event that it waits for, as if our word were a question.
            Some(event) if event.awaits_word => self.conn.expect_sequence(1),
            Some(_) => {}
            None => {
                self.ended = true;
                self.conn.leave_exchange();
            }
        }
    }

    /// Whether the source took our offer of semi-synchronous replication; not known before its first event.
    #[must_use]
    pub fn is_semi_sync(&self) -> bool {
        self.marks == Marks::Yes
    }

    /// What tells the source that everything before this place is here: bytes for its socket.
    ///
    /// Source: the servers' semi-sync plugins; number 0 of a new exchange, then 0xef, u64 offset, the file's name.
    pub fn word(&mut self, file: &str, offset: u64) -> Result<Vec<u8>> {
        let mut body = vec![SEMI_SYNC_MAGIC];
        body.extend_from_slice(&offset.to_le_bytes());
        body.extend_from_slice(file.as_bytes());
        let mut frames = Vec::with_capacity(body.len() + 4);
        packet::encode(&body, 0, &mut frames);
        self.conn.transport.carry(frames, DOING)
    }

    /// Gives an event's memory back for the next one.
    pub fn recycle(&mut self, event: EventBytes) {
        self.conn.recycle(event.payload);
    }
}

/// An event in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    /// Where in the payload it begins; it ends with it.
    start: usize,
    awaits_word: bool,
}

/// The event in a packet, or `None` at the end of the stream.
fn find_event(payload: &[u8], marks: &mut Marks) -> Result<Option<Found>> {
    match payload.first() {
        Some(0x00) => {}
        Some(0xff) => return Err(Error::Server(parse_err(payload)?)),
        Some(0xfe) if is_eof(payload) => return Ok(None),
        other => {
            return Err(Error::protocol(
                "the binlog stream",
                "an event",
                format!("a packet with {other:02x?}"),
            ));
        }
    }
    if *marks == Marks::Unknown {
        let marked = payload.get(1) == Some(&SEMI_SYNC_MAGIC);
        *marks = if marked { Marks::Yes } else { Marks::No };
    }
    let (start, awaits_word) = match *marks {
        Marks::Yes => {
            let (awaits_word, _) = split_semi_sync(payload.get(1..).unwrap_or_default())?;
            (1 + SEMI_SYNC_MARK_LEN as usize, awaits_word)
        }
        _ => (1, false),
    };
    let event = payload.get(start..).unwrap_or_default();
    if event.len() < EVENT_HEADER_LEN {
        return Err(Error::protocol(
            "an event",
            format!("at least {EVENT_HEADER_LEN} bytes"),
            format!("{}", event.len()),
        ));
    }
    let mut len = [0; 4];
    for (slot, byte) in len.iter_mut().zip(event.iter().skip(EVENT_LEN_AT)) {
        *slot = *byte;
    }
    let len = u64::from(u32::from_le_bytes(len));
    if len != event.len() as u64 {
        return Err(Error::protocol(
            "an event",
            format!("{len} bytes, as its header says"),
            format!("{}", event.len()),
        ));
    }
    Ok(Some(Found { start, awaits_word }))
}

/// What a semi-sync source puts before an event: whether it waits for our word, and the event.
/// `body` is the packet without its OK byte.
pub fn split_semi_sync(body: &[u8]) -> Result<(bool, &[u8])> {
    match body {
        [SEMI_SYNC_MAGIC, flag, event @ ..] => Ok((flag & 1 != 0, event)),
        _ => Err(Error::protocol("a semi-sync event", "byte 0xef", format!("{:02x?}", body.first()))),
    }
}

/// True if the source said that what we asked for is purged or of another history.
#[must_use]
pub fn is_not_there(error: &ServerError) -> bool {
    error.code == ER_SOURCE_FATAL_READING_BINLOG
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event_packet(len: usize) -> Vec<u8> {
        let mut payload = vec![0; 1 + len];
        payload[1 + EVENT_LEN_AT..][..4].copy_from_slice(&(len as u32).to_le_bytes());
        payload
    }

    fn take(payload: Vec<u8>, marks: &mut Marks) -> Result<Option<EventBytes>> {
        let found = find_event(&payload, marks)?;
        Ok(found.map(|Found { start, awaits_word }| EventBytes { payload, start, awaits_word }))
    }

    fn parse(payload: Vec<u8>) -> Result<Option<EventBytes>> {
        take(payload, &mut Marks::No)
    }

    #[test]
    fn the_first_event_tells_whether_the_source_marks_them_and_a_mark_whether_it_waits() {
        let marked = |flags: u8| {
            let mut payload = event_packet(40);
            payload.splice(1..1, [0xef, flags]);
            payload
        };
        let mut marks = Marks::Unknown;
        let first = take(marked(0), &mut marks).unwrap().unwrap();
        assert_eq!((marks, first.len(), first.awaits_word()), (Marks::Yes, 40, false));
        assert!(take(marked(1), &mut marks).unwrap().unwrap().awaits_word());
        assert!(take(event_packet(40), &mut marks).is_err());

        let mut marks = Marks::Unknown;
        assert_eq!(take(event_packet(40), &mut marks).unwrap().unwrap().len(), 40);
        assert_eq!(marks, Marks::No);
    }

    #[test]
    fn a_request_by_gtid_is_laid_out_as_the_source_reads_it() {
        let mut options = DumpOptions::new(0x0102_0304);
        options.until_end = true;
        let (command, body) = request(&DumpFrom::Gtid(vec![0xaa; 3]), &options, Flavor::MySql).unwrap();
        assert_eq!(command, 0x1e);
        assert_eq!(
            body,
            [1, 0, 4, 3, 2, 1, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0xaa, 0xaa, 0xaa]
        );
    }

    #[test]
    fn a_request_by_position_carries_the_file_and_refuses_4_gib() {
        let options = DumpOptions::new(9);
        let at = |offset| DumpFrom::Position { file: "b.1".into(), offset };
        let (command, body) = request(&at(260), &options, Flavor::MariaDb).unwrap();
        assert_eq!(
            (command, body.as_slice()),
            (0x12, [4, 1, 0, 0, 2, 0, 9, 0, 0, 0, b'b', b'.', b'1'].as_slice())
        );
        assert!(request(&at(1 << 32), &options, Flavor::MySql).is_err());
    }

    #[test]
    fn an_event_that_is_not_as_long_as_it_says_is_an_error() {
        assert_eq!(parse(event_packet(40)).unwrap().unwrap().len(), 40);
        let mut short = event_packet(40);
        short.pop();
        assert!(parse(short).is_err());
        assert!(parse(event_packet(18)).is_err());
        assert!(parse(vec![0xfe, 0, 0, 2, 0]).unwrap().is_none());
    }

    #[test]
    fn the_sources_error_keeps_its_number() {
        let error = parse(b"\xff\xd4\x04#HY000purged".to_vec()).unwrap_err();
        let Error::Server(error) = error else { panic!("{error}") };
        assert!(is_not_there(&error));
    }

    #[test]
    fn a_position_text_cannot_leave_its_quotes() {
        assert!(plain_text("x", "0-1-2' , @a = '").is_err());
        assert!(plain_text("x", "0-1-2,7-3-4").is_ok());
    }

    #[test]
    fn the_semi_sync_mark_is_split_off() {
        assert_eq!(split_semi_sync(&[0xef, 1, 5, 6]).unwrap(), (true, [5, 6].as_slice()));
        assert!(split_semi_sync(&[0, 1]).is_err());
    }

    proptest! {
        #[test]
        fn any_packet_is_an_event_an_end_or_an_error(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(payload);
        }
    }
}
