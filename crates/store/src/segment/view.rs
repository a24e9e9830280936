//! Reading sealed segments by address.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::keys;
use holdfast_format::limits::{DEPTH_MAX, SEGMENT_BYTES_MAX};
use holdfast_format::names;
use holdfast_format::segment::{
    DELTA_PREFIX_BYTES, FRAME_HEADER_BYTES, Footer, FooterEntry, FrameHeader, FrameKind, PAGE_BYTES,
    SegmentHeader, Trailer,
};
use holdfast_io::{File, ObjectName, Objects};

use super::ahead::Ahead;
use crate::cipher::Cipher;
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::parity;

/// Bytes of footers kept: 64 MiB are some 400 segments, so 25 GiB of stored blocks in reach at once.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// A sealed segment, ready to read from.
#[derive(Debug)]
pub(crate) struct SegmentView {
    name: ObjectName,
    objects: Arc<dyn Objects>,
    file: Option<Arc<dyn File>>,
    ahead: Ahead,
    keys: Arc<Keys>,
    header: SegmentHeader,
    ciphers: Vec<Cipher>,
    footer: Footer,
    /// The whole segment as its parity brought it back; then nothing is read from the object.
    healed: Option<Arc<Vec<u8>>>,
    /// For carriers: (birth, slot) to the place in the footer. Elsewhere slot and place are the same.
    carried: Option<HashMap<(u8, u32), u32>>,
}

/// A frame found in a segment.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) view: Arc<SegmentView>,
    pub(crate) entry: FooterEntry,
}

impl SegmentView {
    /// Reads header, trailer and footer of a segment; `healed` are its bytes if the object is not to be read.
    pub(crate) fn load(
        objects: &Arc<dyn Objects>,
        keys: &Arc<Keys>,
        segment: SegmentId,
        healed: Option<Arc<Vec<u8>>>,
    ) -> Result<Self> {
        let name = ObjectName::new(names::segment(segment))?;
        let read = |offset, len| match &healed {
            Some(bytes) => slice(&name, bytes, offset, len).map(<[u8]>::to_vec),
            None => Ok(objects.read(&name, offset, len)?),
        };
        let len = match &healed {
            Some(bytes) => bytes.len() as u64,
            None => objects.len(&name)?,
        };
        let header = SegmentHeader::decode(&read(0, PAGE_BYTES as u64)?).map_err(Error::format(&name))?;
        if header.repo != keys.repo || header.segment != segment {
            return Err(Error::damaged(&name, "its header", "it belongs to another place"));
        }
        let at = len.checked_sub(PAGE_BYTES as u64).ok_or(Error::damaged(&name, "its length", len))?;
        let trailer = Trailer::decode(&read(at, PAGE_BYTES as u64)?).map_err(Error::format(&name))?;
        if trailer.repo != keys.repo || trailer.segment != segment || trailer.detached {
            return Err(Error::damaged(&name, "its trailer", "it belongs to another place"));
        }
        let mut ciphers = Vec::with_capacity(header.births.len());
        let mut footers = None;
        for (at, birth) in header.births.iter().enumerate() {
            let data_key = keys.unwrap(birth, name.as_str())?;
            ciphers.push(keys.cipher(&keys::frame_key(&data_key))?);
            if at == 0 {
                footers = Some(keys.cipher(&keys::footer_key(&data_key))?);
            }
        }
        let footers = footers.ok_or(Error::damaged(&name, "its header", "it names no key"))?;
        let sealed = read(trailer.footer_offset, trailer.footer_len)?;
        let footer = open_footer(&name, keys, &footers, &trailer, &sealed)?;
        let plain = footer.entries.iter().enumerate().all(|(at, e)| e.birth == 0 && e.slot as usize == at);
        let carried = (!plain).then(|| {
            let place =
                |(at, e): (usize, &FooterEntry)| ((e.birth, e.slot), u32::try_from(at).unwrap_or(u32::MAX));
            footer.entries.iter().enumerate().map(place).collect()
        });
        let file = if healed.is_some() { None } else { objects.file(&name)? };
        Ok(Self {
            name,
            objects: Arc::clone(objects),
            file,
            ahead: Ahead::default(),
            keys: Arc::clone(keys),
            header,
            ciphers,
            footer,
            healed,
            carried,
        })
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// What it says of itself.
    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The address of a frame that the footer lists.
    pub(crate) fn address(&self, entry: &FooterEntry) -> Option<Address> {
        let birth = self.header.births.get(usize::from(entry.birth))?;
        Some(Address { segment: birth.segment, slot: entry.slot })
    }

    /// The entry of an address whose frame lies here.
    pub(crate) fn entry(&self, address: Address) -> Option<&FooterEntry> {
        let place = match &self.carried {
            None if address.segment == self.header.segment => address.slot as usize,
            None => return None,
            Some(carried) => {
                let birth = self.header.births.iter().position(|b| b.segment == address.segment)?;
                *carried.get(&(u8::try_from(birth).ok()?, address.slot))? as usize
            }
        };
        self.footer.entries.get(place)
    }

    /// Whether an entry of the footer is a block that this birth has here.
    pub(crate) fn has_block(&self, birth: SegmentId, entry: &FooterEntry) -> bool {
        let here = || self.entry(Address { segment: birth, slot: entry.slot });
        entry.kind == FrameKind::Block && here().is_some_and(|found| std::ptr::eq(found, entry))
    }

    /// The segment as a file for the bulk engines, opened anew; `None` where its place has no files, or where it was
    /// healed and the file is not to be read.
    pub(crate) fn bulk_file(&self) -> Result<Option<Arc<dyn File>>> {
        if self.healed.is_some() { Ok(None) } else { Ok(self.objects.bulk_file(&self.name)?) }
    }

    /// Reads bytes of the segment.
    pub(crate) fn read_into(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match (&self.healed, &self.file) {
            (Some(bytes), _) => {
                buf.copy_from_slice(slice(&self.name, bytes, offset, buf.len() as u64)?);
                Ok(())
            }
            (None, Some(file)) => Ok(file.read_exact_at(offset, buf)?),
            (None, None) => Ok(self.objects.read_into(&self.name, offset, buf)?),
        }
    }

    /// Says that this frame is read next, and that those behind it are likely to follow.
    pub(crate) fn reads_on(&self, entry: &FooterEntry) {
        if let Some(file) = &self.file
            && let Some((from, len)) = self.ahead.next(u64::from(entry.offset), u64::from(entry.stored_len))
        {
            file.read_ahead(from, len);
        }
    }

    /// Opens a frame whose header and payload are `frame`; `payload` is then its encoded payload.
    pub(crate) fn open(&self, entry: &FooterEntry, frame: &[u8], payload: &mut Vec<u8>) -> Result<()> {
        let place = || format!("slot {} (offset {})", entry.slot, entry.offset);
        let header = FrameHeader::decode(frame).map_err(|e| Error::damaged(&self.name, place(), e))?;
        let same = header.slot == entry.slot
            && header.kind == entry.kind
            && header.codec == entry.codec
            && header.depth == entry.depth
            && header.birth == entry.birth
            && header.plain_len == entry.plain_len
            && header.stored_len == entry.stored_len;
        if !same {
            return Err(Error::damaged(
                &self.name,
                place(),
                "the frame is not the one that the footer lists",
            ));
        }
        let birth = self.header.births.get(usize::from(entry.birth));
        let (Some(birth), Some(cipher)) = (birth, self.ciphers.get(usize::from(entry.birth))) else {
            return Err(Error::damaged(&self.name, place(), "the header lists no such birth"));
        };
        let sealed = frame.get(FRAME_HEADER_BYTES..).unwrap_or(&[]);
        open_frame(&self.keys, cipher, birth.segment, &header, sealed, payload)
            .map_err(|why| Error::damaged(&self.name, place(), why))
    }

    /// Reads and opens a frame; `payload` is then its encoded payload.
    pub(crate) fn read(&self, entry: &FooterEntry, coder: &mut Coder, payload: &mut Vec<u8>) -> Result<()> {
        let len = FRAME_HEADER_BYTES.saturating_add(entry.stored_len as usize);
        let mut frame = std::mem::take(&mut coder.frame);
        frame.resize(frame.len().max(len), 0);
        let part = frame.get_mut(..len).unwrap_or_default();
        let opened =
            self.read_into(u64::from(entry.offset), part).and_then(|()| self.open(entry, part, payload));
        coder.frame = frame;
        opened
    }

    /// Decodes an opened payload that is no delta into `plain`, of the length that its entry names, and checks its id.
    pub(crate) fn decode(
        &self,
        coder: &mut Coder,
        entry: &FooterEntry,
        payload: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        self.decode_base(coder, entry, payload, plain)?;
        self.check_id(entry, plain)
    }

    /// As [`SegmentView::decode`], for a base on the way to a block whose own id will be checked: if that is right, so
    /// was this.
    pub(crate) fn decode_base(
        &self,
        coder: &mut Coder,
        entry: &FooterEntry,
        payload: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        if !coder.decode(entry.codec, payload, plain) {
            return Err(self.wrong(entry, "it does not decompress to the length that it names"));
        }
        Ok(())
    }

    /// Decodes an opened delta against its base's plaintext, as [`SegmentView::decode`].
    pub(crate) fn decode_delta(
        &self,
        coder: &mut Coder,
        entry: &FooterEntry,
        payload: &[u8],
        base: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        self.decode_delta_base(coder, entry, payload, base, plain)?;
        self.check_id(entry, plain)
    }

    /// As [`SegmentView::decode_delta`], for a base: as [`SegmentView::decode_base`].
    pub(crate) fn decode_delta_base(
        &self,
        coder: &mut Coder,
        entry: &FooterEntry,
        payload: &[u8],
        base: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        let (head, delta) = payload
            .split_at_checked(DELTA_PREFIX_BYTES)
            .ok_or_else(|| self.wrong(entry, "it is cut short"))?;
        if entry.base.is_none_or(|base| base.to_bytes() != head) {
            return Err(self.wrong(entry, "it names another base than the footer"));
        }
        if !coder.decode_delta(delta, base, plain) {
            return Err(self.wrong(entry, "it is no delta of its base"));
        }
        Ok(())
    }

    fn check_id(&self, entry: &FooterEntry, plain: &[u8]) -> Result<()> {
        if keys::block_id(&self.keys.block_id, plain) != entry.id {
            return Err(self.wrong(entry, "its content is not what its id says"));
        }
        Ok(())
    }

    pub(crate) fn wrong(&self, entry: &FooterEntry, why: &str) -> Error {
        Error::damaged(&self.name, format!("slot {}", entry.slot), why)
    }

    fn cost(&self) -> u64 {
        let healed = self.healed.as_ref().map_or(0, |bytes| bytes.len() as u64);
        (self.footer.entries.len() as u64).saturating_mul(if self.carried.is_some() { 110 } else { 88 })
            + healed
            + 2048
    }
}

fn slice<'b>(name: &ObjectName, bytes: &'b [u8], offset: u64, len: u64) -> Result<&'b [u8]> {
    let range =
        usize::try_from(offset).ok().zip(offset.checked_add(len).and_then(|e| usize::try_from(e).ok()));
    let part = range.and_then(|(from, to)| bytes.get(from..to));
    part.ok_or_else(|| Error::damaged(name, format!("offset {offset}"), "it ends before"))
}

/// Checks the payload of a frame, and decrypts it into `payload`.
pub(crate) fn open_frame(
    keys: &Keys,
    cipher: &Cipher,
    birth: SegmentId,
    header: &FrameHeader,
    sealed: &[u8],
    payload: &mut Vec<u8>,
) -> std::result::Result<(), &'static str> {
    if sealed.len() != header.stored_len as usize {
        return Err("it is cut short");
    }
    cipher
        .open_into(keys::frame_nonce(header.slot), &header.aad(keys.repo, birth), sealed, payload)
        .map_err(|_| "its tag is wrong")
}

fn open_footer(
    name: &ObjectName,
    keys: &Keys,
    cipher: &Cipher,
    trailer: &Trailer,
    sealed: &[u8],
) -> Result<Footer> {
    let wrong = |why: &str| Error::damaged(name, "its footer", why);
    let (nonce, rest) = sealed.split_first_chunk::<12>().ok_or_else(|| wrong("it is cut short"))?;
    let mut plain = rest.get(4..).unwrap_or(&[]).to_vec();
    let aad = Footer::aad(keys.repo, trailer.segment, trailer.detached, trailer.frames_end, trailer.frames);
    cipher.open(*nonce, &aad, &mut plain).map_err(|_| wrong("its tag is wrong"))?;
    let footer = Footer::decode(&plain).map_err(Error::format(name))?;
    if footer.entries.len() != trailer.frames as usize {
        return Err(wrong("it lists another number of frames than the trailer"));
    }
    Ok(footer)
}

#[derive(Debug, Default)]
struct Cached {
    views: HashMap<SegmentId, (Arc<SegmentView>, u64)>,
    bytes: u64,
    tick: u64,
}

/// What became of segments that were found damaged.
#[derive(Debug, Default)]
struct Heals {
    healed: Vec<Healing>,
    hopeless: HashSet<SegmentId>,
}

/// A segment that was damaged where it lies, and was read all the same by its parity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healing {
    /// The segment's object.
    pub object: String,
    /// How many pages of 4 KiB were not as they were written.
    pub bad_pages: u32,
}

/// Views of segments, the least recently used ones forgotten.
#[derive(Debug)]
pub(crate) struct FooterCache {
    objects: Arc<dyn Objects>,
    keys: Arc<Keys>,
    cached: Mutex<Cached>,
    /// Held while a segment is healed: that takes some five times its size of memory.
    heals: Mutex<Heals>,
    /// Births that compaction moved, and where they are now.
    carriers: RwLock<HashMap<SegmentId, SegmentId>>,
}

impl FooterCache {
    pub(crate) fn new(objects: Arc<dyn Objects>, keys: Arc<Keys>) -> Self {
        Self { objects, keys, cached: Mutex::default(), heals: Mutex::default(), carriers: RwLock::default() }
    }

    /// Learns where births are now.
    pub(crate) fn set_carriers(&self, carriers: HashMap<SegmentId, SegmentId>) {
        *self.carriers.write().unwrap_or_else(PoisonError::into_inner) = carriers;
    }

    /// The object that holds a birth's frames.
    pub(crate) fn carrier(&self, birth: SegmentId) -> SegmentId {
        self.carriers.read().unwrap_or_else(PoisonError::into_inner).get(&birth).copied().unwrap_or(birth)
    }

    /// A fresh view of one object, wherever the frames of its births are now.
    pub(crate) fn object(&self, object: SegmentId) -> Result<SegmentView> {
        SegmentView::load(&self.objects, &self.keys, object, None)
    }

    /// The view of the segment that holds a birth's frames.
    pub(crate) fn view(&self, birth: SegmentId) -> Result<Arc<SegmentView>> {
        let segment = self.carrier(birth);
        {
            let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
            cached.tick += 1;
            let tick = cached.tick;
            if let Some((view, used)) = cached.views.get_mut(&segment) {
                *used = tick;
                return Ok(Arc::clone(view));
            }
        }
        // Loaded outside of the lock: other threads go on, at worst it is loaded twice.
        match SegmentView::load(&self.objects, &self.keys, segment, None) {
            Ok(view) => Ok(self.keep(segment, Arc::new(view))),
            Err(e) if e.is_damage() => self.heal(segment)?.ok_or(e),
            Err(e) => Err(e),
        }
    }

    /// The view to read from after this one gave something that is damaged; `None` if parity can't help.
    pub(crate) fn healed(&self, broken: &SegmentView) -> Result<Option<Arc<SegmentView>>> {
        if broken.healed.is_some() { Ok(None) } else { self.heal(broken.header.segment) }
    }

    /// What was healed so far.
    pub(crate) fn healings(&self) -> Vec<Healing> {
        self.heals.lock().unwrap_or_else(PoisonError::into_inner).healed.clone()
    }

    /// Reads a segment whole and brings it back by its parity, in memory. The object is left as it is: mending it is the
    /// scrub's work.
    fn heal(&self, segment: SegmentId) -> Result<Option<Arc<SegmentView>>> {
        let mut heals = self.heals.lock().unwrap_or_else(PoisonError::into_inner);
        if heals.hopeless.contains(&segment) {
            return Ok(None);
        }
        {
            let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((view, _)) = cached.views.get(&segment).filter(|(v, _)| v.healed.is_some()) {
                return Ok(Some(Arc::clone(view)));
            }
        }
        let name = ObjectName::new(names::segment(segment))?;
        let healed = match self.whole(&name) {
            Some(whole) => parity::heal(self.keys.repo, segment, &whole)?,
            None => parity::Healed::NoParity,
        };
        let view = match healed {
            parity::Healed::Repaired { bytes, bad_pages } => {
                let view = SegmentView::load(&self.objects, &self.keys, segment, Some(Arc::new(bytes)));
                view.ok().map(|view| (view, bad_pages))
            }
            _ => None,
        };
        let Some((view, bad_pages)) = view else {
            heals.hopeless.insert(segment);
            return Ok(None);
        };
        let healing = Healing { object: name.to_string(), bad_pages };
        if !heals.healed.contains(&healing) {
            heals.healed.push(healing);
        }
        Ok(Some(self.keep(segment, Arc::new(view))))
    }

    /// The bytes of a segment, with zeros where they can't be read; `None` if it isn't there.
    fn whole(&self, name: &ObjectName) -> Option<Vec<u8>> {
        const PIECE_BYTES: usize = 64 * 1024;
        let len = self.objects.len(name).ok().filter(|len| *len <= SEGMENT_BYTES_MAX * 2)?;
        let mut whole = vec![0; usize::try_from(len).ok()?];
        if self.objects.read_into(name, 0, &mut whole).is_err() {
            for (at, piece) in whole.chunks_mut(PIECE_BYTES).enumerate() {
                if self.objects.read_into(name, (at * PIECE_BYTES) as u64, piece).is_err() {
                    piece.fill(0);
                }
            }
        }
        Some(whole)
    }

    /// Puts a view into the cache, in place of another one of the same segment.
    fn keep(&self, segment: SegmentId, view: Arc<SegmentView>) -> Arc<SegmentView> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let tick = cached.tick;
        cached.bytes += view.cost();
        if let Some((old, _)) = cached.views.insert(segment, (Arc::clone(&view), tick)) {
            cached.bytes = cached.bytes.saturating_sub(old.cost());
        }
        while cached.bytes > CACHE_BYTES && cached.views.len() > 1 {
            let oldest =
                cached.views.iter().filter(|(id, _)| **id != segment).min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(id, _)| *id) else { break };
            if let Some((old, _)) = cached.views.remove(&oldest) {
                cached.bytes = cached.bytes.saturating_sub(old.cost());
            }
        }
        view
    }

    /// Finds a frame.
    pub(crate) fn locate(&self, address: Address) -> Result<Located> {
        let view = self.view(address.segment)?;
        let Some(entry) = view.entry(address).copied() else {
            return Err(Error::damaged(
                view.name(),
                format!("slot {}", address.slot),
                "its footer lists no such frame",
            ));
        };
        Ok(Located { view, entry })
    }

    /// The view of a segment and the entry of a frame of it, if both are readable and every base below it can be found
    /// as well: only then may something new rely on it.
    pub(crate) fn try_locate(&self, address: Address) -> Option<Located> {
        let found = self.locate(address).ok()?;
        self.has_bases(&found.entry).then_some(found)
    }

    /// Whether every base below a frame can be found.
    pub(crate) fn has_bases(&self, entry: &FooterEntry) -> bool {
        let mut base = entry.base;
        for _ in 0..=DEPTH_MAX {
            let Some(address) = base else { return true };
            let Ok(found) = self.locate(address) else { return false };
            base = found.entry.base;
        }
        false
    }

    /// Reads a frame that is no block.
    pub(crate) fn read(&self, coder: &mut Coder, address: Address) -> Result<Vec<u8>> {
        let Located { view, entry } = self.locate(address)?;
        let read = |view: &SegmentView, coder: &mut Coder| -> Result<Vec<u8>> {
            let mut payload = Vec::new();
            view.read(&entry, coder, &mut payload)?;
            let mut plain = vec![0; entry.plain_len as usize];
            view.decode(coder, &entry, &payload, &mut plain)?;
            Ok(plain)
        };
        match read(&view, coder) {
            Err(e) if e.is_damage() => match self.healed(&view)? {
                Some(healed) => read(&healed, coder),
                None => Err(e),
            },
            other => other,
        }
    }
}
