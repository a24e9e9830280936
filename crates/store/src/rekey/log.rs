//! One log segment sealed anew.
//!
//! A log may end in three ways: with its own trailer, with a detached footer, or where a crash tore it off. With nobody
//! at work each of them is as long as it will ever be, so the new one ends with a footer and a trailer of its own. A
//! detached footer is sealed under the log's old key, in an object of its own: first its log gets the same end attached,
//! under the old key still, then the detached one goes. So no state has a footer that its log's key does not open.

use holdfast_format::ids::SegmentId;
use holdfast_format::keys;
use holdfast_format::names;
use holdfast_format::record::Record;
use holdfast_format::segment::{Footer, Trailer};
use holdfast_io::ObjectName;

use super::Run;
use super::segment::{not_given, pad};
use crate::error::{Error, Result};
use crate::logs::{Scanned, scan_whole};
use crate::segment::seal_footer;

impl Run<'_> {
    /// Seals a log segment anew and replaces it. One that holds nothing that anybody was told of goes.
    pub(super) fn log(&self, id: SegmentId, name: &ObjectName) -> Result<bool> {
        let objects = self.inner.objects.as_ref();
        let foot = ObjectName::new(names::log_foot(id))?;
        let detached = objects.exists(&foot)?;
        let records = self.inner.manifest.records();
        if let (_, Some(refused)) = self.read(name)? {
            return Err(not_given(name, &refused));
        }
        let recorded =
            records.iter().any(|s| matches!(&s.record, Record::LogSealed(log) if log.segment == id));
        let scanned = scan_whole(self.inner, id, name, recorded)?;
        let Some(scanned) = scanned.filter(|s| recorded || detached || !s.entries.is_empty()) else {
            if recorded || detached {
                return Err(Error::damaged(name, "its header", "it is not whole"));
            }
            objects.delete(name)?;
            return Ok(true);
        };
        let whole = self.attached(id, name, scanned)?;
        if detached {
            objects.replace(name, &whole)?;
            objects.delete(&foot)?;
        }
        objects.replace(name, &self.resealed(id, name, whole)?)?;
        Ok(true)
    }

    /// The log up to where its frames end, with footer and trailer behind them.
    fn attached(&self, id: SegmentId, name: &ObjectName, scanned: Scanned) -> Result<Vec<u8>> {
        let (repo, frames_end) = (self.inner.keys.repo, scanned.frames_end);
        let (mut bytes, _) = self.read(name)?;
        bytes.truncate(usize::try_from(frames_end).unwrap_or(usize::MAX));
        pad(&mut bytes);
        let footer_offset = bytes.len() as u64;
        let frames = u32::try_from(scanned.entries.len()).unwrap_or(u32::MAX);
        let footer = Footer { entries: scanned.entries };
        let cipher = self.inner.keys.cipher(&keys::footer_key(&scanned.data_key))?;
        let sealed = seal_footer(&self.inner.keys, &cipher, id, &footer, false, frames_end)?;
        bytes.extend_from_slice(&sealed);
        pad(&mut bytes);
        let trailer = Trailer {
            repo,
            segment: id,
            detached: false,
            frames_end,
            footer_offset,
            footer_len: sealed.len() as u64,
            frames,
            frames_root: *scanned.root.finalize().as_bytes(),
            parity: None,
        };
        bytes.extend_from_slice(&trailer.encode());
        Ok(bytes)
    }
}
