//! Which transactions of a MariaDB are archived, by who wrote them.
//!
//! A position of MariaDB says how far each domain is, and nothing of what lies before: without `gtid_strict_mode` two servers
//! give the same numbers to transactions of their own. So whether one is archived is asked of the index.

use std::collections::HashMap;
use std::ops::ControlFlow;

use holdfast_binlog::Body;
use holdfast_format::gtid::{Gtid, GtidSet, MariaDbGtid};
use holdfast_format::ids::ServerId;
use holdfast_format::record::StreamKey;
use holdfast_format::txn_index::EntryView;

use crate::error::Result;
use crate::index::each_frame;
use crate::log::LogReader;
use crate::server_log::ServerLog;
use crate::storage::LogStore;

/// The transactions of the newest part of an archive that has no hole. Memory: a number for each change of the writer.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The last number of each domain before the archive begins: what is up to it can't be told apart.
    before: HashMap<u32, u64>,
    /// For each domain and server: the first and the last number of each row of numbers without one missing.
    runs: HashMap<(u32, u32), Vec<(u64, u64)>>,
}

impl Written {
    /// Out of the index of a server's log.
    pub(crate) fn of(store: &dyn LogStore, server: ServerId) -> Result<Self> {
        let mut written = Self::default();
        let part = ServerLog::open(store, server)?.newest_part();
        if let Some(first) = part.first() {
            written.begin(store, first)?;
        }
        for stream in &part {
            each_frame(store, stream, &mut |frame| {
                frame.each(|entry: &EntryView<'_>| {
                    if let Some(Gtid::MariaDb(gtid)) = entry.gtid() {
                        written.add(gtid);
                    }
                    Ok::<(), crate::error::Error>(())
                })?;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        for runs in written.runs.values_mut() {
            runs.sort_unstable();
        }
        Ok(written)
    }

    /// What came before the archive: its start says so, or the list at the head of its first file.
    fn begin(&mut self, store: &dyn LogStore, stream: &StreamKey) -> Result<()> {
        let stretches = store.stretches(stream)?;
        if let Some(GtidSet::MariaDb(start)) = stretches.first().map(|first| &first.start.gtid) {
            start.iter().for_each(|gtid| self.begin_behind(gtid));
        }
        let mut reader = LogReader::open(store, stream)?;
        while let Some(event) = reader.next_event()? {
            if event.transaction.is_some() {
                break;
            }
            if let Ok(Body::GtidList(list)) = event.event.parse(event.format) {
                list.iter().for_each(|gtid| self.begin_behind(gtid));
                break;
            }
        }
        Ok(())
    }

    fn begin_behind(&mut self, gtid: MariaDbGtid) {
        let last = self.before.entry(gtid.domain).or_default();
        *last = gtid.sequence.max(*last);
    }

    fn add(&mut self, gtid: MariaDbGtid) {
        let runs = self.runs.entry((gtid.domain, gtid.server)).or_default();
        match runs.last_mut() {
            Some((_, last)) if gtid.sequence == *last || gtid.sequence == last.saturating_add(1) => {
                *last = gtid.sequence;
            }
            _ => runs.push((gtid.sequence, gtid.sequence)),
        }
    }

    /// Whether it is archived, or comes before what is.
    pub(crate) fn has(&self, gtid: &Gtid) -> bool {
        let Gtid::MariaDb(gtid) = gtid else { return true };
        if self.before.get(&gtid.domain).is_some_and(|last| gtid.sequence <= *last) {
            return true;
        }
        let runs = self.runs.get(&(gtid.domain, gtid.server)).map(Vec::as_slice).unwrap_or_default();
        let at = runs.partition_point(|(first, _)| *first <= gtid.sequence);
        let run = at.checked_sub(1).and_then(|at| runs.get(at));
        run.is_some_and(|(_, last)| gtid.sequence <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_two_servers_gave_is_that_of_one_of_them() {
        let gtid = |text: &str| text.parse::<MariaDbGtid>().unwrap();
        let mut written = Written::default();
        written.begin_behind(gtid("0-2-7"));
        written.begin_behind(gtid("0-1-9"));
        for sequence in 10..=110 {
            written.add(MariaDbGtid { domain: 0, server: 1, sequence });
        }
        written.add(gtid("0-2-111"));
        written.add(gtid("0-1-112"));
        let has = |text: &str| written.has(&Gtid::MariaDb(gtid(text)));
        for known in ["0-2-5", "0-3-9", "0-1-10", "0-1-101", "0-1-110", "0-2-111", "0-1-112"] {
            assert!(has(known), "{known}");
        }
        for strange in ["0-2-101", "0-2-110", "0-1-111", "0-1-113", "0-3-10", "1-1-50"] {
            assert!(!has(strange), "{strange}");
        }
    }
}
