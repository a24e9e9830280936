//! What an archived log takes in its repository: events and their index, compressed and sealed, each frame with its header.

use std::fs;
use std::path::Path;

use holdfast_format::names::{FOOT_SUFFIX, LOGS};
use holdfast_format::segment::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, PAGE_BYTES};

use super::error::{Error, Result, at};

/// Bytes of a repository's log segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Of events, as they came from the source.
    pub raw: u64,
    /// Of events, stored.
    pub events: u64,
    /// Of the index, stored.
    pub index: u64,
    /// Of all else: headers, notes, footers, parity.
    pub other: u64,
}

impl Stored {
    /// The index, as a part of the events as they are stored.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.index as f64 / self.events as f64
    }
}

/// Looks at the frames of all logs of a repository, by their plain headers.
///
/// # Errors
/// A file can't be read.
pub fn stored(repository: &Path) -> Result<Stored> {
    let (mut sum, mut waiting) = (Stored::default(), vec![repository.join(LOGS)]);
    while let Some(folder) = waiting.pop() {
        for entry in at("list", &folder, fs::read_dir(&folder))? {
            let path = at("list", &folder, entry)?.path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let bytes = at("read", &path, fs::read(&path))?;
            if path.to_string_lossy().ends_with(FOOT_SUFFIX) {
                sum.other += bytes.len() as u64;
            } else {
                segment(&bytes, &mut sum);
            }
        }
    }
    if sum.events == 0 {
        return Err(Error::Server(format!("{} has no archived log", repository.display())));
    }
    Ok(sum)
}

fn segment(bytes: &[u8], sum: &mut Stored) {
    let mut offset = PAGE_BYTES;
    // Behind the last frame comes what is none: a footer, or nothing.
    while let Some(header) = bytes.get(offset..offset + FRAME_HEADER_BYTES)
        && let Ok(header) = FrameHeader::decode(header)
    {
        let len = header.frame_len();
        match header.kind {
            FrameKind::LogEvents => {
                (sum.events, sum.raw) = (sum.events + len, sum.raw + u64::from(header.plain_len));
            }
            FrameKind::LogIndex => sum.index += len,
            _ => sum.other += len,
        }
        offset += len as usize;
    }
    sum.other += (PAGE_BYTES + bytes.len().saturating_sub(offset)) as u64;
}
