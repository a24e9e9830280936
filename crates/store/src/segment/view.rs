//! Reading sealed segments by address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::keys;
use holdfast_format::names;
use holdfast_format::segment::{
    DELTA_PREFIX_BYTES, FRAME_HEADER_BYTES, Footer, FooterEntry, FrameHeader, PAGE_BYTES, SegmentHeader,
    Trailer,
};
use holdfast_io::{File, ObjectName, Objects};

use crate::cipher::Cipher;
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::keys::Keys;

/// Bytes of footers kept: 64 MiB are some 400 segments, so 25 GiB of stored blocks in reach at once.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// A sealed segment, ready to read from.
#[derive(Debug)]
pub(crate) struct SegmentView {
    name: ObjectName,
    objects: Arc<dyn Objects>,
    file: Option<Arc<dyn File>>,
    keys: Arc<Keys>,
    header: SegmentHeader,
    ciphers: Vec<Cipher>,
    footer: Footer,
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
    fn load(objects: &Arc<dyn Objects>, keys: &Arc<Keys>, segment: SegmentId, log: bool) -> Result<Self> {
        let name = ObjectName::new(if log { names::log(segment) } else { names::segment(segment) })?;
        let len = objects.len(&name)?;
        let header = objects.read(&name, 0, PAGE_BYTES as u64)?;
        let header = SegmentHeader::decode(&header).map_err(Error::format(&name))?;
        if header.repo != keys.repo || header.segment != segment {
            return Err(Error::damaged(&name, "its header", "it belongs to another place"));
        }
        let at = len.checked_sub(PAGE_BYTES as u64).ok_or(Error::damaged(&name, "its length", len))?;
        let trailer =
            Trailer::decode(&objects.read(&name, at, PAGE_BYTES as u64)?).map_err(Error::format(&name))?;
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
        let sealed = objects.read(&name, trailer.footer_offset, trailer.footer_len)?;
        let footer = open_footer(&name, keys, &footers, &trailer, &sealed)?;
        let plain = footer.entries.iter().enumerate().all(|(at, e)| e.birth == 0 && e.slot as usize == at);
        let carried = (!plain).then(|| {
            let place =
                |(at, e): (usize, &FooterEntry)| ((e.birth, e.slot), u32::try_from(at).unwrap_or(u32::MAX));
            footer.entries.iter().enumerate().map(place).collect()
        });
        let file = objects.file(&name)?;
        Ok(Self {
            name,
            objects: Arc::clone(objects),
            file,
            keys: Arc::clone(keys),
            header,
            ciphers,
            footer,
            carried,
        })
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
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

    /// The segment as an open file, where its place has files.
    pub(crate) fn file(&self) -> Option<&Arc<dyn File>> {
        self.file.as_ref()
    }

    /// Reads bytes of the segment.
    pub(crate) fn read_into(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match &self.file {
            Some(file) => Ok(file.read_exact_at(offset, buf)?),
            None => Ok(self.objects.read_into(&self.name, offset, buf)?),
        }
    }

    /// Opens a frame whose header and payload are `frame`: gives the encoded payload.
    pub(crate) fn open(&self, entry: &FooterEntry, frame: &[u8]) -> Result<Vec<u8>> {
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
        let payload = frame.get(FRAME_HEADER_BYTES..).unwrap_or(&[]);
        open_frame(&self.keys, cipher, birth.segment, &header, payload)
            .map_err(|why| Error::damaged(&self.name, place(), why))
    }

    /// Reads and opens a frame.
    pub(crate) fn read(&self, entry: &FooterEntry) -> Result<Vec<u8>> {
        let mut frame = vec![0; FRAME_HEADER_BYTES.saturating_add(entry.stored_len as usize)];
        self.read_into(u64::from(entry.offset), &mut frame)?;
        self.open(entry, &frame)
    }

    /// Decodes an opened payload that is no delta, and checks its id.
    pub(crate) fn decode(&self, coder: &mut Coder, entry: &FooterEntry, payload: Vec<u8>) -> Result<Vec<u8>> {
        let wrong = |why: &str| Error::damaged(&self.name, format!("slot {}", entry.slot), why);
        let plain = coder.decode(entry.codec, payload, entry.plain_len);
        let plain = plain.ok_or_else(|| wrong("it does not decompress to the length that it names"))?;
        if keys::block_id(&self.keys.block_id, &plain) != entry.id {
            return Err(wrong("its content is not what its id says"));
        }
        Ok(plain)
    }

    /// Decodes an opened delta against its base's plaintext, and checks its id.
    pub(crate) fn decode_delta(
        &self,
        coder: &mut Coder,
        entry: &FooterEntry,
        payload: &[u8],
        base: &[u8],
    ) -> Result<Vec<u8>> {
        let wrong = |why: &str| Error::damaged(&self.name, format!("slot {}", entry.slot), why);
        let (head, delta) =
            payload.split_at_checked(DELTA_PREFIX_BYTES).ok_or_else(|| wrong("it is cut short"))?;
        if entry.base.is_none_or(|base| base.to_bytes() != head) {
            return Err(wrong("it names another base than the footer"));
        }
        let plain = coder.decode_delta(delta, base, entry.plain_len as usize);
        let plain = plain.ok_or_else(|| wrong("it is no delta of its base"))?;
        if keys::block_id(&self.keys.block_id, &plain) != entry.id {
            return Err(wrong("its content is not what its id says"));
        }
        Ok(plain)
    }

    fn cost(&self) -> u64 {
        (self.footer.entries.len() as u64).saturating_mul(if self.carried.is_some() { 110 } else { 88 })
            + 2048
    }
}

/// Checks and decrypts the payload of a frame.
pub(crate) fn open_frame(
    keys: &Keys,
    cipher: &Cipher,
    birth: SegmentId,
    header: &FrameHeader,
    payload: &[u8],
) -> std::result::Result<Vec<u8>, &'static str> {
    if payload.len() != header.stored_len as usize {
        return Err("it is cut short");
    }
    let mut payload = payload.to_vec();
    cipher
        .open(keys::frame_nonce(header.slot), &header.aad(keys.repo, birth), &mut payload)
        .map_err(|_| "its tag is wrong")?;
    Ok(payload)
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

/// Views of segments, the least recently used ones forgotten.
#[derive(Debug)]
pub(crate) struct FooterCache {
    objects: Arc<dyn Objects>,
    keys: Arc<Keys>,
    cached: Mutex<Cached>,
    /// Births that compaction moved, and where they are now.
    carriers: RwLock<HashMap<SegmentId, SegmentId>>,
}

impl FooterCache {
    pub(crate) fn new(objects: Arc<dyn Objects>, keys: Arc<Keys>) -> Self {
        Self { objects, keys, cached: Mutex::default(), carriers: RwLock::default() }
    }

    /// Learns where births are now.
    pub(crate) fn set_carriers(&self, carriers: HashMap<SegmentId, SegmentId>) {
        *self.carriers.write().unwrap_or_else(PoisonError::into_inner) = carriers;
    }

    /// The object that holds a birth's frames.
    pub(crate) fn carrier(&self, birth: SegmentId) -> SegmentId {
        self.carriers.read().unwrap_or_else(PoisonError::into_inner).get(&birth).copied().unwrap_or(birth)
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
        let view = Arc::new(SegmentView::load(&self.objects, &self.keys, segment, false)?);
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let tick = cached.tick;
        if cached.views.insert(segment, (Arc::clone(&view), tick)).is_none() {
            cached.bytes += view.cost();
        }
        while cached.bytes > CACHE_BYTES && cached.views.len() > 1 {
            let oldest =
                cached.views.iter().filter(|(id, _)| **id != segment).min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(id, _)| *id) else { break };
            if let Some((old, _)) = cached.views.remove(&oldest) {
                cached.bytes = cached.bytes.saturating_sub(old.cost());
            }
        }
        Ok(view)
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

    /// The view of a segment and the entry of a frame of it, if both are readable.
    pub(crate) fn try_locate(&self, address: Address) -> Option<Located> {
        self.locate(address).ok()
    }

    /// Reads a frame that is no block.
    pub(crate) fn read(&self, coder: &mut Coder, address: Address) -> Result<Vec<u8>> {
        let found = self.locate(address)?;
        let payload = found.view.read(&found.entry)?;
        found.view.decode(coder, &found.entry, payload)
    }
}
