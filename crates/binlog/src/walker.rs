//! From bytes to events: framing, checksums, the format that is in force.

use crate::error::Error;
use crate::event::{Event, FLAG_IN_USE, HEADER_LEN, Header};
use crate::format::{Checksum, FormatDescription};
use crate::kind::EventType;

/// The first bytes of a binlog file.
pub const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];

/// The first bytes of a file that MySQL encrypted.
const MAGIC_ENCRYPTED: [u8; 4] = [0xfd, b'b', b'i', b'n'];

/// Largest event. A row event holds at least one row, a row up to 1 GiB
/// (`max_allowed_packet`), an update two of them; lengths are 32 bits.
pub const EVENT_LEN_MAX: u32 = u32::MAX - 1;

/// Walks over events. It holds the format in force and a position, never the bytes: the
/// caller gives those and drops them as it likes.
#[derive(Debug, Clone, Default)]
pub struct Walker {
    format: Option<FormatDescription>,
    position: u64,
    /// Somebody compared the checksums already.
    checked: bool,
}

impl Walker {
    /// A walker at the start of a stream, before any format description.
    #[must_use]
    pub fn new(position: u64) -> Self {
        Self { format: None, position, checked: false }
    }

    /// A walker over events that came through another one: their checksums are not compared again.
    #[must_use]
    pub fn behind_another() -> Self {
        Self { checked: true, ..Self::default() }
    }

    /// A walker in the middle of a stream whose format is known.
    #[must_use]
    pub fn resume(format: FormatDescription, position: u64) -> Self {
        Self { format: Some(format), position, checked: false }
    }

    /// The format in force.
    #[must_use]
    pub fn format(&self) -> Option<&FormatDescription> {
        self.format.as_ref()
    }

    /// Where the next event starts.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Sets where the next event starts (after ROTATE on a replication connection).
    pub fn set_position(&mut self, position: u64) {
        self.position = position;
    }

    /// Takes the magic off the front of a file.
    ///
    /// # Errors
    /// Fails when the bytes are no binlog's.
    pub fn file<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        match bytes.split_at_checked(MAGIC.len()) {
            Some((magic, rest)) if magic == MAGIC => {
                self.position += MAGIC.len() as u64;
                Ok(rest)
            }
            found => {
                let magic = found.map_or(bytes, |(magic, _)| magic);
                let encrypted = magic == MAGIC_ENCRYPTED;
                let hint =
                    if encrypted { " (encrypted by MySQL: archive it from the server instead)" } else { "" };
                let got = magic.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
                Err(Error::Magic { got, hint })
            }
        }
    }

    /// The event at the front of `bytes`, or `None` when more bytes are needed. The caller
    /// goes on behind `event.raw`.
    ///
    /// # Errors
    /// Fails on impossible lengths, a wrong checksum, and events before a format description.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::read(header);
        let min = HEADER_LEN as u64 + self.checksum_of(&header)?.len() as u64;
        if u64::from(header.length) < min || header.length > EVENT_LEN_MAX {
            let (position, length) = (self.position, u64::from(header.length));
            return Err(Error::Length { position, length, min, max: u64::from(EVENT_LEN_MAX) });
        }
        let Some(raw) = bytes.get(..header.length as usize) else {
            return Ok(None);
        };
        self.accept(header, raw).map(Some)
    }

    /// Like [`Walker::step`] for bytes to which nothing will be added.
    ///
    /// # Errors
    /// As `step`, and on a cut event.
    pub fn whole<'a>(&mut self, bytes: &'a [u8]) -> Result<Event<'a>, Error> {
        let step = self.step(bytes)?;
        step.ok_or_else(|| {
            let needed = bytes.first_chunk().map_or(HEADER_LEN as u64, |h| u64::from(Header::read(h).length));
            Error::Cut { position: self.position, end: self.position + bytes.len() as u64, needed }
        })
    }

    /// All events of a file that is in memory, magic included.
    pub fn events(bytes: &[u8]) -> Events<'_> {
        Events { walker: Self::new(0), rest: bytes, started: false }
    }

    /// How an event ends, by the format in force.
    fn checksum_of(&self, header: &Header) -> Result<Checksum, Error> {
        match (&self.format, header.kind) {
            (_, EventType::FORMAT_DESCRIPTION) => Ok(Checksum::Crc32),
            (Some(format), _) => Ok(format.checksum),
            (None, kind) => Err(Error::NoFormat { position: self.position, kind }),
        }
    }

    fn accept<'a>(&mut self, header: Header, raw: &'a [u8]) -> Result<Event<'a>, Error> {
        let checksum = self.checksum_of(&header)?;
        let mut event = Event { header, position: self.position, raw, checksum };
        if header.kind == EventType::FORMAT_DESCRIPTION {
            let format = FormatDescription::parse(event.body()).map_err(|flaw| event.malformed(flaw))?;
            event.checksum = format.checksum;
            self.verify(&event)?;
            self.format = Some(format);
        } else {
            self.verify(&event)?;
        }
        self.position += raw.len() as u64;
        Ok(event)
    }

    fn verify(&self, event: &Event<'_>) -> Result<(), Error> {
        if self.checked { Ok(()) } else { verify(event) }
    }
}

/// Compares an event's checksum with its bytes. The in-use flag is left out: a server sets
/// and clears it in place. An artificial format description has a checksum of its own.
fn verify(event: &Event<'_>) -> Result<(), Error> {
    if event.checksum.is_empty() {
        return Ok(());
    }
    let Some((bytes, stored)) = event.raw.split_last_chunk::<4>() else { return Ok(()) };
    let stored = u32::from_le_bytes(*stored);
    let mut hasher = crc32fast::Hasher::new();
    match bytes.split_at_checked(17) {
        Some((head, tail)) if event.header.flags & FLAG_IN_USE != 0 => {
            hasher.update(head);
            hasher.update(&(event.header.flags & !FLAG_IN_USE).to_le_bytes());
            hasher.update(tail.get(2..).unwrap_or_default());
        }
        _ => hasher.update(bytes),
    }
    let computed = hasher.finalize();
    if computed == stored {
        return Ok(());
    }
    Err(Error::Crc { position: event.position, kind: event.header.kind, stored, computed })
}

/// Iterator over the events of a file in memory; ends behind the first error.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    walker: Walker,
    rest: &'a [u8],
    started: bool,
}

impl Events<'_> {
    /// The format in force behind the last event.
    #[must_use]
    pub fn format(&self) -> Option<&FormatDescription> {
        self.walker.format()
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.started {
            self.started = true;
            match self.walker.file(self.rest) {
                Ok(rest) => self.rest = rest,
                Err(e) => {
                    self.rest = &[];
                    return Some(Err(e));
                }
            }
        }
        if self.rest.is_empty() {
            return None;
        }
        let event = self.walker.whole(self.rest);
        self.rest = match &event {
            Ok(event) => self.rest.get(event.raw.len()..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(event)
    }
}
