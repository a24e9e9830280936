//! From the spool to the sink.
//!
//! One thread parses; the blocks of each file are made and handed over by one of several workers, because the sink
//! does its work in the caller's thread. A file stays with its worker, so that its bytes keep their order.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::info;
use super::whole::Tables;
use crate::assemble::BlockAssembler;
use crate::error::Error;
use crate::path::FilePath;
use crate::sink::{FileNo, FileSpec, Sink};
use crate::source::{Progress, Stage, Watch};
use crate::spool::{Popped, Spool};
use crate::threads;
use crate::verify::{VerifyingSink, kind_of};
use crate::xbstream::{Event, Parser};

/// Pieces that wait for one worker: 16 of 256 KiB.
const PIECES_WAITING: usize = 16;

/// Longest of the small text files kept in memory.
const METADATA_BYTES_MAX: usize = 1 << 20;

/// Permission bits of the files, which the stream does not carry: the server's own default.
const MODE: u32 = 0o660;

/// What came.
pub(super) struct Stream {
    pub(super) metadata: Vec<(String, Vec<u8>)>,
    pub(super) bytes: u64,
    pub(super) files: u64,
}

enum Work {
    Data { file: FileNo, offset: u64, bytes: Vec<u8> },
    End { file: FileNo, len: u64 },
}

pub(super) fn receive(
    spool: &Spool<()>,
    sink: &VerifyingSink<'_>,
    watch: &dyn Watch,
    workers: usize,
) -> Result<Stream, Error> {
    thread::scope(|scope| {
        let mut senders = Vec::new();
        let mut begun = Vec::new();
        for _ in 0..workers.max(1) {
            let (send, receive) = bounded(PIECES_WAITING);
            match threads::begin(scope, "store blocks", move || assemble(&receive, sink)) {
                Ok(thread) => begun.push(thread),
                Err(error) if begun.is_empty() => return Err(error),
                // Those that are there do it all.
                Err(_) => break,
            }
            senders.push(send);
        }
        let mut parsing = Parsing {
            sink,
            senders,
            open: HashMap::new(),
            tables: Tables::default(),
            stream: Stream { metadata: Vec::new(), bytes: 0, files: 0 },
        };
        let parsed = parsing.run(spool, watch);
        let Parsing { senders, stream, .. } = parsing;
        drop(senders);
        let mut worked = Ok(());
        for thread in begun {
            let result = thread.join().unwrap_or(Err(Error::Thread { doing: "make blocks" }));
            worked = worked.and(result);
        }
        // A worker's error is the reason of what the parser met.
        worked.and(parsed).map(|()| stream)
    })
}

fn assemble(receive: &Receiver<Work>, sink: &dyn Sink) -> Result<(), Error> {
    let mut files: HashMap<FileNo, BlockAssembler> = HashMap::new();
    for work in receive {
        match work {
            Work::Data { file, offset, bytes } => {
                files.entry(file).or_insert_with(|| BlockAssembler::new(file)).write(sink, offset, &bytes)?;
            }
            Work::End { file, len } => {
                let mut assembler = files.remove(&file).unwrap_or_else(|| BlockAssembler::new(file));
                assembler.finish(sink, len)?;
            }
        }
    }
    Ok(())
}

struct Parsing<'a> {
    sink: &'a VerifyingSink<'a>,
    senders: Vec<Sender<Work>>,
    /// Files that have begun and not ended, with their workers.
    open: HashMap<FilePath, (FileNo, usize)>,
    tables: Tables,
    stream: Stream,
}

impl Parsing<'_> {
    fn run(&mut self, spool: &Spool<()>, watch: &dyn Watch) -> Result<(), Error> {
        let mut parser = Parser::new();
        loop {
            match spool.pop(Duration::from_millis(100))? {
                Popped::Piece((), bytes) => {
                    self.stream.bytes += bytes.len() as u64;
                    parser.feed(&bytes, |event| self.event(event))?;
                    spool.done();
                }
                Popped::Nothing => {}
                Popped::End => break,
            }
            watch.progress(Progress {
                stage: Stage::Files,
                bytes: self.stream.bytes,
                bytes_expected: None,
                files: self.stream.files,
            });
        }
        parser.finish()?;
        self.tables.check()
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), Error> {
        match event {
            Event::Data { path, offset, bytes } => {
                let (file, worker) = self.file(path)?;
                self.tables.saw(path, offset, bytes);
                self.keep_metadata(path, bytes)?;
                self.send(worker, Work::Data { file, offset, bytes: bytes.to_vec() })
            }
            Event::End { path, len } => {
                let (file, worker) = self.file(path)?;
                // An empty file has no bytes, only an end.
                self.tables.saw(path, len, &[]);
                self.open.remove(path);
                self.stream.files += 1;
                self.send(worker, Work::End { file, len })
            }
        }
    }

    fn file(&mut self, path: &FilePath) -> Result<(FileNo, usize), Error> {
        if let Some(known) = self.open.get(path) {
            return Ok(*known);
        }
        let spec =
            FileSpec { path: path.clone(), kind: kind_of(path), expected_len: 0, mode: MODE, mtime_us: None };
        let file = self.sink.add_file(spec)?;
        // Whoever has least to do.
        let idlest = self.senders.iter().enumerate().min_by_key(|(_, sender)| sender.len());
        let worker = idlest.map_or(0, |(worker, _)| worker);
        self.open.insert(path.clone(), (file, worker));
        Ok((file, worker))
    }

    fn send(&self, worker: usize, work: Work) -> Result<(), Error> {
        let gone = Error::Thread { doing: "make blocks" };
        match self.senders.get(worker) {
            Some(sender) => sender.send(work).map_err(|_| gone),
            None => Err(gone),
        }
    }

    fn keep_metadata(&mut self, path: &FilePath, bytes: &[u8]) -> Result<(), Error> {
        let Ok(name) = std::str::from_utf8(path.as_bytes()) else { return Ok(()) };
        if !info::is_metadata(name) {
            return Ok(());
        }
        let place = match self.stream.metadata.iter().position(|(known, _)| known == name) {
            Some(place) => place,
            None => {
                self.stream.metadata.push((name.to_owned(), Vec::new()));
                self.stream.metadata.len() - 1
            }
        };
        if let Some((_, text)) = self.stream.metadata.get_mut(place) {
            if text.len() + bytes.len() > METADATA_BYTES_MAX {
                let (got, limit) = ((text.len() + bytes.len()) as u64, METADATA_BYTES_MAX as u64);
                return Err(Error::TooMany {
                    what: "bytes of a metadata file in the backup stream",
                    got,
                    limit,
                });
            }
            text.extend_from_slice(bytes);
        }
        Ok(())
    }
}
