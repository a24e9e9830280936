//! Records and packs sealed anew under the newest key, each where it is.
//!
//! The chain is one of hashes over sealed bytes. A record that is sealed again keeps the hash that it had at first, as a
//! part of what its tag covers, and the chain goes on by that one; so each copy of each record is replaced by itself.

use holdfast_format::ids::RecordHash;
use holdfast_format::manifest::{ENVELOPE_BYTES_MAX, Envelope, Prefix};
use holdfast_format::names;
use holdfast_format::pack::{PACK_BYTES_MAX, Pack, Prefix as PackPrefix};
use holdfast_io::ObjectName;

use super::Manifest;
use crate::error::{Error, Result};
use crate::random;

impl Manifest {
    /// Seals all records and packs that name an older key anew; a copy that is damaged is made good by the other. Gives
    /// how many objects were replaced, and their bytes. The manifest must be whole.
    pub(crate) fn reseal(&self) -> Result<(u64, u64)> {
        let _lock = self.lock()?;
        let (mut objects, mut bytes) = (0_u64, 0_u64);
        let mut previous = RecordHash::default();
        for number in 0..self.next_number() {
            let names =
                [ObjectName::new(names::manifest(0, number))?, ObjectName::new(names::manifest(1, number))?];
            let (good, hash) = self.resealed(number, previous, &names)?;
            previous = hash;
            for name in &names {
                let there = self.bytes_of(name, ENVELOPE_BYTES_MAX)?;
                if there.as_ref() != Some(&good) {
                    self.objects.replace(name, &good)?;
                    objects += 1;
                    bytes += good.len() as u64;
                }
            }
        }
        let newest = self.keys.generation();
        for first in self.listed_packs()? {
            let name = ObjectName::new(names::pack(first))?;
            let there = self.bytes_of(&name, PACK_BYTES_MAX)?.unwrap_or_default();
            let pack = Pack::decode(&there).ok();
            if pack.as_ref().is_some_and(|pack| pack.prefix.kek_generation == newest) {
                continue;
            }
            match pack.map(|pack| self.resealed_pack(pack)).transpose()?.flatten() {
                Some(good) => self.objects.replace(&name, &good)?,
                // Its records say what it said; an append makes it anew.
                None => self.objects.delete(&name)?,
            }
            objects += 1;
            bytes += there.len() as u64;
        }
        Ok((objects, bytes))
    }

    /// The bytes of a record under the newest key, and what the chain calls it: a copy that is sealed so already, or the
    /// first good one sealed anew.
    fn resealed(
        &self,
        number: u64,
        previous: RecordHash,
        copies: &[ObjectName],
    ) -> Result<(Vec<u8>, RecordHash)> {
        let newest = self.keys.generation();
        let mut good: Option<(Vec<u8>, Envelope)> = None;
        for name in copies {
            let Some(bytes) = self.bytes_of(name, ENVELOPE_BYTES_MAX)? else { continue };
            if self.open(&bytes, number, Some(previous))?.is_err() {
                continue;
            }
            let Ok(envelope) = Envelope::decode(&bytes) else { continue };
            if envelope.prefix.kek_generation == newest {
                return Ok((bytes, envelope.hash));
            }
            good.get_or_insert((bytes, envelope));
        }
        let lost = || Error::damaged("the manifest", format!("record {number}"), "neither copy can be read");
        let (old, Envelope { prefix, sealed: mut body, hash }) = good.ok_or_else(lost)?;
        let cipher = self.keys.manifest_reader(prefix.kek_generation)?.ok_or_else(lost)?;
        cipher.open(prefix.nonce, &prefix.encode(), &mut body).map_err(|_| lost())?;
        let (kek_generation, cipher) = self.keys.manifest_writer()?;
        let prefix = Prefix { kek_generation, nonce: random::bytes()?, first_hash: Some(hash), ..prefix };
        let mut sealed = body.clone();
        cipher.seal(prefix.nonce, &prefix.encode(), &mut sealed)?;
        let made = Envelope::encode(&prefix, &sealed);
        // Before anything is replaced: it reads as the old one did.
        let (before, after) =
            (self.open(&old, number, Some(previous))?, self.open(&made, number, Some(previous))?);
        let again = Envelope::decode(&made).map_err(Error::format("manifest record"))?;
        let mut opened = again.sealed;
        let opens = cipher.open(again.prefix.nonce, &again.prefix.encode(), &mut opened).is_ok();
        if !opens || opened != body || before.is_err() || before.ok() != after.ok() {
            return Err(Error::SelfCheck { what: "a record that was sealed anew" });
        }
        Ok((made, hash))
    }

    /// A pack under the newest key; `None` if it does not open.
    fn resealed_pack(&self, pack: Pack) -> Result<Option<Vec<u8>>> {
        let Pack { prefix, sealed: mut plain } = pack;
        let Some(cipher) = self.keys.manifest_reader(prefix.kek_generation)? else { return Ok(None) };
        if prefix.repo != self.keys.repo || cipher.open(prefix.nonce, &prefix.encode(), &mut plain).is_err() {
            return Ok(None);
        }
        let (kek_generation, cipher) = self.keys.manifest_writer()?;
        let prefix = PackPrefix { kek_generation, nonce: random::bytes()?, ..prefix };
        let mut sealed = plain.clone();
        cipher.seal(prefix.nonce, &prefix.encode(), &mut sealed)?;
        let made = Pack::encode(&prefix, &sealed);
        let mut again = Pack::decode(&made).map_err(Error::format("pack of records"))?;
        if cipher.open(again.prefix.nonce, &again.prefix.encode(), &mut again.sealed).is_err()
            || again.sealed != plain
        {
            return Err(Error::SelfCheck { what: "a pack that was sealed anew" });
        }
        Ok(Some(made))
    }
}
