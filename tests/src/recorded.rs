//! A source that only plays one: it serves a recorded binlog over the real protocol, at its own pace, to as many
//! archives as ask. So one machine holds twenty servers' streams.
//!
//! It speaks what an archive needs of a MySQL 8.4: the greeting (any password is right), the few questions about
//! identity and log, and `COM_BINLOG_DUMP` with its artificial events and heartbeats. It does not tell where its log ends,
//! as an account without that right is not told; every other statement is a syntax error.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MAGIC: usize = 4;
const HEADER: usize = 19;
const ROTATE: u8 = 4;
const HEARTBEAT: u8 = 27;
const ARTIFICIAL: u16 = 0x20;
const SERVER_ID: u32 = 77;
/// The types of an event that begins a transaction: `GTID_LOG_EVENT`, `ANONYMOUS_GTID_LOG_EVENT`, `GTID_TAGGED_LOG_EVENT`.
const BEGINS: [u8; 3] = [33, 34, 42];
/// How often it is looked for what is released.
const LOOK: Duration = Duration::from_millis(10);
/// Longest rest between two packets of a dump.
const BEAT: Duration = Duration::from_secs(2);

/// A binlog file as a server left it: its bytes, and where transactions begin.
#[derive(Debug)]
pub struct Recording {
    /// The file's name.
    pub file: String,
    /// All of it, the magic number included; the flag of a file that is open is taken out.
    pub bytes: Vec<u8>,
    /// Ends of transactions, rising; the first one is the end of the file's head.
    pub ends: Vec<usize>,
}

impl Recording {
    /// Reads a whole file that no server writes to any more, without the event that leads to the next one.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let mut bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes[..MAGIC], [0xfe, b'b', b'i', b'n']);
        bytes[MAGIC + 17] &= !1;
        let (mut at, mut ends) = (MAGIC, Vec::new());
        while at + HEADER <= bytes.len() {
            if BEGINS.contains(&bytes[at + 4]) {
                ends.push(at);
            }
            // The next file is not recorded: this one goes on for ever.
            if bytes[at + 4] == ROTATE {
                bytes.truncate(at);
                break;
            }
            at += size_at(&bytes, at);
        }
        assert_eq!(at, bytes.len(), "the file ends in the middle of an event");
        ends.push(at);
        Self { file: path.file_name().unwrap().to_str().unwrap().to_owned(), bytes, ends }
    }

    /// The event that says how the others are written, as it is sent before a place in the middle of the file.
    fn head(&self, from: usize) -> Vec<u8> {
        let mut event = self.bytes[MAGIC..MAGIC + size_at(&self.bytes, MAGIC)].to_vec();
        if from > MAGIC {
            // Nothing is begun anew there: the time of creation and the place are taken out.
            event[13..17].fill(0);
            event[HEADER + 52..HEADER + 56].fill(0);
            seal(&mut event);
        }
        event
    }
}

fn size_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at + 9..at + 13].try_into().unwrap()) as usize
}

/// Puts the checksum of an event into its last four bytes.
fn seal(event: &mut [u8]) {
    let body = event.len() - 4;
    let sum = crc32fast::hash(&event[..body]);
    event[body..].copy_from_slice(&sum.to_le_bytes());
}

/// An event that is in no file.
fn artificial(kind: u8, log_pos: u32, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut event = vec![0; 4];
    event.push(kind);
    event.extend(SERVER_ID.to_le_bytes());
    event.extend(((HEADER + body.len() + 4) as u32).to_le_bytes());
    event.extend(log_pos.to_le_bytes());
    event.extend(flags.to_le_bytes());
    event.extend(body);
    event.extend([0; 4]);
    seal(&mut event);
    event
}

/// What of the recording is there to be had, and since when.
#[derive(Debug)]
struct Pace {
    began: Instant,
    /// Transactions that are there at the beginning.
    first: usize,
    /// Transactions a second.
    rate: f64,
}

#[derive(Debug)]
struct Shared {
    recording: Arc<Recording>,
    uuid: String,
    pace: Mutex<Option<Pace>>,
    stop: AtomicBool,
    dumps: Mutex<u32>,
}

impl Shared {
    /// The end of what is released.
    fn end(&self) -> usize {
        let ends = &self.recording.ends;
        let there = match &*self.pace.lock().unwrap() {
            None => 0,
            Some(pace) => pace.first + (pace.began.elapsed().as_secs_f64() * pace.rate) as usize,
        };
        ends[there.min(ends.len() - 1)]
    }
}

/// The playing source; it ends with this value.
#[derive(Debug)]
pub struct RecordedSource {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl RecordedSource {
    /// Listens on loopback; nothing of the recording but its head is there until [`RecordedSource::play`].
    #[must_use]
    pub fn start(recording: &Arc<Recording>, number: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            recording: Arc::clone(recording),
            uuid: format!("0a0a0a0a-0000-11ee-8000-{number:012x}"),
            pace: Mutex::default(),
            stop: AtomicBool::new(false),
            dumps: Mutex::default(),
        });
        let all = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !all.stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let one = Arc::clone(&all);
                        // A client that goes ends its thread; so does the end of the source.
                        std::thread::spawn(move || drop(converse(&one, stream)));
                    }
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
        });
        Self { shared, address, thread: Some(thread) }
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Releases the first transactions now, and the rest at this rate a second.
    pub fn play(&self, first: usize, rate: f64) {
        *self.shared.pace.lock().unwrap() = Some(Pace { began: Instant::now(), first, rate });
    }

    /// The end of what was there to be had at this moment.
    #[must_use]
    pub fn end_at(&self, moment: Instant) -> usize {
        let ends = &self.shared.recording.ends;
        let pace = self.shared.pace.lock().unwrap();
        let there = pace
            .as_ref()
            .filter(|pace| moment >= pace.began)
            .map_or(0, |pace| pace.first + ((moment - pace.began).as_secs_f64() * pace.rate) as usize);
        ends[there.min(ends.len() - 1)]
    }

    /// How often the log was asked for.
    #[must_use]
    pub fn dumps(&self) -> u32 {
        *self.shared.dumps.lock().unwrap()
    }
}

impl Drop for RecordedSource {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection.
struct Wire {
    stream: TcpStream,
    number: u8,
}

impl Wire {
    fn send(&mut self, body: &[u8]) -> io::Result<()> {
        assert!(body.len() < 0xff_ffff, "recordings hold small events");
        let mut packet = (body.len() as u32).to_le_bytes()[..3].to_vec();
        packet.push(self.number);
        packet.extend(body);
        self.number = self.number.wrapping_add(1);
        self.stream.write_all(&packet)
    }

    /// A whole packet of the client's; a new command's number is 0.
    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.stream.read_exact(&mut body)?;
        self.number = head[3].wrapping_add(1);
        Ok(body)
    }

    fn ok(&mut self) -> io::Result<()> {
        self.send(&[0, 0, 0, 2, 0, 0, 0])
    }

    fn refuse(&mut self, code: u16, text: &str) -> io::Result<()> {
        let mut body = vec![0xff];
        body.extend(code.to_le_bytes());
        body.extend(b"#42000");
        body.extend(text.as_bytes());
        self.send(&body)
    }

    fn rows(&mut self, columns: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.push(u8::try_from(text.len()).unwrap());
            out.extend(text.as_bytes());
        };
        self.send(&[columns.len() as u8])?;
        for name in columns {
            let mut column = Vec::new();
            for part in ["def", "", "", "", name, name] {
                text(&mut column, part);
            }
            column.extend([0x0c, 45, 0, 0, 1, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
            self.send(&column)?;
        }
        let end = [0xfe, 0, 0, 2, 0];
        self.send(&end)?;
        for row in rows {
            let mut body = Vec::new();
            row.iter().for_each(|cell| text(&mut body, cell));
            self.send(&body)?;
        }
        self.send(&end)
    }
}

fn converse(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(false)?;
    let mut wire = Wire { stream, number: 0 };
    wire.send(&greeting())?;
    wire.receive()?;
    wire.ok()?;
    while !shared.stop.load(Ordering::Relaxed) {
        let command = wire.receive()?;
        match command.first() {
            Some(0x03) => answer(shared, &mut wire, &String::from_utf8_lossy(&command[1..]))?,
            // COM_PING, COM_REGISTER_SLAVE.
            Some(0x0e | 0x15) => wire.ok()?,
            Some(0x12) => return dump(shared, &mut wire, &command[1..]),
            // COM_QUIT.
            Some(0x01) | None => return Ok(()),
            Some(other) => wire.refuse(1047, &format!("a recording knows no command {other}"))?,
        }
    }
    Ok(())
}

fn greeting() -> Vec<u8> {
    // Long flags, protocol 4.1, transactions, 20-byte challenges; plugins are named.
    const CAPABILITIES: u32 = 1 | 4 | 8 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 19;
    let (low, high) = ((CAPABILITIES & 0xffff) as u16, (CAPABILITIES >> 16) as u16);
    let mut body = vec![10];
    body.extend(b"8.4.0\0");
    body.extend(1_u32.to_le_bytes());
    body.extend(b"abcdefgh\0");
    body.extend(low.to_le_bytes());
    body.push(45);
    body.extend(2_u16.to_le_bytes());
    body.extend(high.to_le_bytes());
    body.push(21);
    body.extend([0; 10]);
    body.extend(b"ijklmnopqrst\0mysql_native_password\0");
    body
}

fn answer(shared: &Shared, wire: &mut Wire, statement: &str) -> io::Result<()> {
    let one = |text: &str| vec![vec![text.to_owned()]];
    match statement {
        "SELECT @@server_uuid" | "SELECT @@GLOBAL.server_uuid" => wire.rows(&["uuid"], &one(&shared.uuid)),
        "SELECT @@GLOBAL.log_bin" => wire.rows(&["on"], &one("1")),
        "SHOW BINARY LOGS" => {
            let file = [shared.recording.file.clone(), shared.end().to_string(), "No".to_owned()];
            wire.rows(&["Log_name", "File_size", "Encrypted"], &[file.to_vec()])
        }
        "SHOW BINARY LOG STATUS" | "SHOW MASTER STATUS" => wire.refuse(1227, "Access denied"),
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            wire.rows(&["now"], &one(&now.as_micros().to_string()))
        }
        set if set.starts_with("SET ") => wire.ok(),
        other => wire.refuse(1064, &format!("a recording knows no statement {other:?}")),
    }
}

/// Serves the log from where it is asked for, as it is released, with heartbeats in between.
fn dump(shared: &Shared, wire: &mut Wire, request: &[u8]) -> io::Result<()> {
    *shared.dumps.lock().unwrap() += 1;
    let recording = &*shared.recording;
    let from = u32::from_le_bytes(request[..4].try_into().unwrap()) as usize;
    let file = String::from_utf8_lossy(&request[10..]).into_owned();
    if file != recording.file || from < MAGIC || from > shared.end() {
        return wire.refuse(1236, "Could not find first log file name in binary log index file");
    }
    let event = |wire: &mut Wire, event: &[u8]| wire.send(&[&[0], event].concat());
    let mut body = (from as u64).to_le_bytes().to_vec();
    body.extend(file.as_bytes());
    event(wire, &artificial(ROTATE, 0, ARTIFICIAL, &body))?;
    event(wire, &recording.head(from))?;
    let head_end = MAGIC + size_at(&recording.bytes, MAGIC);
    let mut at = if from == MAGIC { head_end } else { from };
    let mut said = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let end = shared.end();
        if at < end {
            while at < end {
                let size = size_at(&recording.bytes, at);
                event(wire, &recording.bytes[at..at + size])?;
                at += size;
            }
            said = Instant::now() - BEAT;
        }
        // Said at once behind the last event, too: then the archive knows that there is no more.
        if said.elapsed() >= BEAT {
            event(wire, &artificial(HEARTBEAT, at as u32, 0, file.as_bytes()))?;
            said = Instant::now();
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
