//! MariaDB's GTIDs: positions (one per domain) and the binlog state (one per domain and server).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::wire::{self, Reader};
use super::{GtidError, TSIDS_MAX};

/// `domain-server-sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MariaDbGtid {
    /// `gtid_domain_id` of the writer.
    pub domain: u32,
    /// `server_id` of the writer.
    pub server: u32,
    /// Sequence number in the domain.
    pub sequence: u64,
}

impl MariaDbGtid {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        wire::put_leb(out, u64::from(self.domain));
        wire::put_leb(out, u64::from(self.server));
        wire::put_leb(out, self.sequence);
    }

    pub(super) fn take(r: &mut Reader<'_>) -> Result<Self, GtidError> {
        let (domain, server) = (r.leb("a domain")?, r.leb("a server id")?);
        let narrow = |r: &Reader<'_>, v: u64| u32::try_from(v).map_err(|_| r.bad("a number of 32 bits", v));
        let (domain, server) = (narrow(r, domain)?, narrow(r, server)?);
        Ok(Self { domain, server, sequence: r.leb("a sequence number")? })
    }
}

impl fmt::Display for MariaDbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for MariaDbGtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let bad = || GtidError::text("a MariaDB GTID like 0-1-100", text);
        let mut parts = text.trim().split('-').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then_some(part).and_then(|part| part.parse::<u64>().ok())
        });
        let mut next = || parts.next().flatten();
        let domain = next().and_then(|v| u32::try_from(v).ok()).ok_or_else(bad)?;
        let server = next().and_then(|v| u32::try_from(v).ok()).ok_or_else(bad)?;
        let sequence = next().ok_or_else(bad)?;
        match parts.next() {
            None => Ok(Self { domain, server, sequence }),
            Some(_) => Err(bad()),
        }
    }
}

fn parse_list(text: &str) -> Result<Vec<MariaDbGtid>, GtidError> {
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if list.len() >= TSIDS_MAX {
            return Err(GtidError::TooLarge {
                what: "GTIDs",
                got: list.len() as u64 + 1,
                limit: TSIDS_MAX as u64,
            });
        }
        list.push(part.parse()?);
    }
    Ok(list)
}

/// A position: the last transaction of each domain (`gtid_slave_pos`, `gtid_current_pos`,
/// `gtid_binlog_pos`, the argument of a dump by GTID).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MariaDbGtidPos {
    domains: BTreeMap<u32, (u32, u64)>,
}

impl MariaDbGtidPos {
    /// Is no domain named?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The last transaction of each domain, in the order of domains.
    pub fn iter(&self) -> impl Iterator<Item = MariaDbGtid> {
        self.domains.iter().map(|(&domain, &(server, sequence))| MariaDbGtid { domain, server, sequence })
    }

    /// The last transaction of a domain.
    #[must_use]
    pub fn get(&self, domain: u32) -> Option<MariaDbGtid> {
        self.domains.get(&domain).map(|&(server, sequence)| MariaDbGtid { domain, server, sequence })
    }

    /// Sets the position of a domain, forward or back.
    pub fn set(&mut self, gtid: MariaDbGtid) {
        self.domains.insert(gtid.domain, (gtid.server, gtid.sequence));
    }

    /// Moves a domain forward; a transaction that is not beyond the position changes nothing.
    pub fn advance(&mut self, gtid: MariaDbGtid) {
        if !self.contains(&gtid) {
            self.set(gtid);
        }
    }

    /// Is the transaction at or before the position of its domain?
    #[must_use]
    pub fn contains(&self, gtid: &MariaDbGtid) -> bool {
        self.domains.get(&gtid.domain).is_some_and(|&(_, sequence)| gtid.sequence <= sequence)
    }

    /// Per domain the farther of both positions.
    pub fn union(&mut self, other: &Self) {
        for gtid in other.iter() {
            self.advance(gtid);
        }
    }

    /// Drops the domains in which `other` is as far or farther.
    pub fn subtract(&mut self, other: &Self) {
        self.domains.retain(|domain, (_, sequence)| {
            other.domains.get(domain).is_none_or(|&(_, theirs)| theirs < *sequence)
        });
    }

    /// Does a domain occur in both?
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.domains.keys().any(|domain| other.domains.contains_key(domain))
    }

    /// Is `other` as far or farther in every domain?
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|gtid| other.contains(&gtid))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        wire::put_leb(out, self.domains.len() as u64);
        for gtid in self.iter() {
            gtid.put(out);
        }
    }

    pub(super) fn take(r: &mut Reader<'_>) -> Result<Self, GtidError> {
        let count = r.leb("the number of domains")?;
        let count = r.count(count, TSIDS_MAX, "domains", 3)?;
        let mut pos = Self::default();
        for _ in 0..count {
            let gtid = MariaDbGtid::take(r)?;
            if pos.domains.last_key_value().is_some_and(|(last, _)| *last >= gtid.domain) {
                return Err(r.bad("domains in rising order", gtid.domain));
            }
            pos.set(gtid);
        }
        Ok(pos)
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, list: impl Iterator<Item = MariaDbGtid>) -> fmt::Result {
    for (i, gtid) in list.enumerate() {
        if i > 0 {
            f.write_str(",")?;
        }
        write!(f, "{gtid}")?;
    }
    Ok(())
}

impl fmt::Display for MariaDbGtidPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.iter())
    }
}

impl FromStr for MariaDbGtidPos {
    type Err = GtidError;

    /// A domain that is named twice is refused, as the server does.
    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut pos = Self::default();
        for gtid in parse_list(text)? {
            if pos.get(gtid.domain).is_some() {
                return Err(GtidError::text("a MariaDB position with each domain once", text));
            }
            pos.set(gtid);
        }
        Ok(pos)
    }
}

/// The state of a binlog (`gtid_binlog_state`, `GTID_LIST_EVENT`): the last sequence number
/// of each server in each domain; the most recent one of a domain stands last in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MariaDbBinlogState {
    domains: BTreeMap<u32, Vec<(u32, u64)>>,
}

impl MariaDbBinlogState {
    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// All entries, domain by domain, the most recent one of each domain last.
    pub fn iter(&self) -> impl Iterator<Item = MariaDbGtid> {
        self.domains.iter().flat_map(|(&domain, servers)| {
            servers.iter().map(move |&(server, sequence)| MariaDbGtid { domain, server, sequence })
        })
    }

    /// Notes a transaction: its server's entry becomes the most recent one of its domain.
    pub fn update(&mut self, gtid: MariaDbGtid) {
        let servers = self.domains.entry(gtid.domain).or_default();
        servers.retain(|&(server, _)| server != gtid.server);
        servers.push((gtid.server, gtid.sequence));
    }

    /// The position that the state implies: the most recent entry of each domain.
    #[must_use]
    pub fn position(&self) -> MariaDbGtidPos {
        let mut pos = MariaDbGtidPos::default();
        for (&domain, servers) in &self.domains {
            if let Some(&(server, sequence)) = servers.last() {
                pos.set(MariaDbGtid { domain, server, sequence });
            }
        }
        pos
    }
}

impl FromIterator<MariaDbGtid> for MariaDbBinlogState {
    fn from_iter<I: IntoIterator<Item = MariaDbGtid>>(list: I) -> Self {
        let mut state = Self::default();
        for gtid in list {
            state.update(gtid);
        }
        state
    }
}

impl fmt::Display for MariaDbBinlogState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self.iter())
    }
}

impl FromStr for MariaDbBinlogState {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        Ok(parse_list(text)?.into_iter().collect())
    }
}
