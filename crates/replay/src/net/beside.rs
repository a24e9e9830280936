//! The merges of a window, taken on a thread of their own while whoever goes through the log is further on.
//!
//! What looking a row up costs is waiting for memory, and as much as everything else that is done with its event. Rows are
//! handed over by batches, copied; what becomes of one is the same wherever it is taken, so a window is too: but for
//! a flaw or a surprise, which is told some batches later, and at the window's end at the latest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use holdfast_binlog::kind::RowsKind;
use holdfast_binlog::rows::{FLAG_USE_SQL_FOREIGN_KEY, RowPlan, Rows};
use holdfast_binlog::tables::TableKey;

use super::merge::{Frame, Merge, Stop};
use crate::log::EventPlace;

/// Rows that are handed over at once. An event that is larger is not copied.
const BATCH_BYTES: usize = 128 << 10;

/// Batches that wait: as many are made again.
const BATCHES: usize = 4;

/// Why rows could not be taken, and which.
#[derive(Debug)]
pub(crate) struct Halt {
    pub(crate) stop: Stop,
    pub(crate) tables: Vec<Arc<TableKey>>,
    pub(crate) place: EventPlace,
}

/// The rows of an event, in a batch.
#[derive(Debug)]
struct Handed {
    merge: usize,
    plan: usize,
    kind: RowsKind,
    table_id: u64,
    flags: u16,
    width: u16,
    position: u64,
    /// Where its parts end, one behind the other: the columns of the first image, of the second, the rows.
    present: usize,
    present_after: Option<usize>,
    data: usize,
}

/// Row events of one file, in their order.
#[derive(Debug, Default)]
struct Batch {
    file: Option<Arc<str>>,
    plans: Vec<Arc<RowPlan>>,
    bytes: Vec<u8>,
    rows: Vec<Handed>,
    /// Bytes of its rows, inflated.
    weight: usize,
}

impl Batch {
    fn plan(&mut self, plan: &Arc<RowPlan>) -> usize {
        let known = self.plans.iter().position(|known| Arc::ptr_eq(known, plan));
        known.unwrap_or_else(|| {
            self.plans.push(Arc::clone(plan));
            self.plans.len() - 1
        })
    }

    fn add(&mut self, merge: usize, rows: &Rows<'_>, plan: &Arc<RowPlan>, place: &EventPlace) {
        self.file.get_or_insert_with(|| Arc::clone(&place.file));
        let plan = self.plan(plan);
        let mut copy = |part: &[u8]| {
            self.bytes.extend_from_slice(part);
            self.bytes.len()
        };
        let present = copy(rows.present);
        let present_after = rows.present_after.map(&mut copy);
        let data = copy(rows.data);
        let Rows { kind, table_id, flags, width, .. } = *rows;
        let position = place.position;
        let handed =
            Handed { merge, plan, kind, table_id, flags, width, position, present, present_after, data };
        self.rows.push(handed);
    }

    fn clear(&mut self) {
        self.file = None;
        self.plans.clear();
        self.bytes.clear();
        self.rows.clear();
        self.weight = 0;
    }
}

/// The merges.
#[derive(Debug, Default)]
struct Merges {
    list: Vec<Merge>,
    scratch: Vec<u8>,
}

impl Merges {
    fn take_batch(&mut self, batch: &Batch, sums: &Sums) -> Result<(), Halt> {
        let file = batch.file.clone().unwrap_or_default();
        // From here on they count as what comes of them.
        sums.taken.fetch_add(batch.weight, Ordering::Relaxed);
        let mut from = 0;
        for handed in &batch.rows {
            let Handed { kind, table_id, flags, width, .. } = *handed;
            let part = |from: usize, to: usize| batch.bytes.get(from..to).unwrap_or_default();
            let after = handed.present_after;
            let rows = Rows {
                kind,
                table_id,
                flags,
                extra: &[],
                width,
                present: part(from, handed.present),
                present_after: after.map(|end| part(handed.present, end)),
                data: part(after.unwrap_or(handed.present), handed.data),
            };
            from = handed.data;
            let Some(plan) = batch.plans.get(handed.plan) else { continue };
            self.take(handed.merge, &rows, plan, sums).map_err(|(stop, table)| {
                let place = EventPlace { file: Arc::clone(&file), position: handed.position };
                Halt { stop, tables: vec![table], place }
            })?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        at: usize,
        rows: &Rows<'_>,
        plan: &Arc<RowPlan>,
        sums: &Sums,
    ) -> Result<(), (Stop, Arc<TableKey>)> {
        let Some(merge) = self.list.get_mut(at) else { return Ok(()) };
        let (before, taken) = (merge.net_rows(), merge.taken);
        let grown =
            rows.inflated(&mut self.scratch).map_err(Stop::from).and_then(|rows| merge.take(&rows, plan));
        sums.net.fetch_add(merge.net_rows().wrapping_sub(before), Ordering::Relaxed);
        sums.merged.fetch_add(merge.taken - taken, Ordering::Relaxed);
        match grown {
            Ok(grown) => {
                sums.bytes.fetch_add(grown, Ordering::Relaxed);
                Ok(())
            }
            Err(stop) => Err((stop, Arc::clone(&merge.table))),
        }
    }
}

/// What came of the rows so far.
#[derive(Debug, Default)]
struct Sums {
    /// Memory that the merges take.
    bytes: AtomicIsize,
    /// Bytes of rows in batches that were taken, inflated.
    taken: AtomicUsize,
    merged: AtomicU64,
    net: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Batch>,
    /// Emptied ones.
    spare: Vec<Batch>,
    /// One is being taken.
    busy: bool,
    /// Nothing more comes.
    closed: bool,
    halt: Option<Halt>,
}

#[derive(Debug, Default)]
struct Shared {
    merges: Mutex<Merges>,
    queue: Mutex<Queue>,
    wake: Condvar,
    sums: Sums,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn merges(&self) -> MutexGuard<'_, Merges> {
        self.merges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes batches until no more come. Behind a halt nothing is taken.
    fn work(&self) {
        let mut queue = self.queue();
        loop {
            let Some(batch) = queue.waiting.pop_front() else {
                if queue.closed {
                    return;
                }
                queue = self.wait(queue);
                continue;
            };
            queue.busy = true;
            let halted = queue.halt.is_some();
            drop(queue);
            let mut taking = Taking { shared: self, batch, taken: None };
            taking.taken =
                Some(if halted { Ok(()) } else { self.merges().take_batch(&taking.batch, &self.sums) });
            drop(taking);
            queue = self.queue();
        }
    }
}

/// A batch that is being taken. It is given back whatever happens to the thread: somebody may wait for it.
struct Taking<'s> {
    shared: &'s Shared,
    batch: Batch,
    /// How it ended; `None`: the thread panicked, and whoever joins it goes on with the panic.
    taken: Option<Result<(), Halt>>,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        let mut queue = self.shared.queue();
        queue.busy = false;
        match self.taken.take() {
            Some(Ok(())) => queue.spare.push(batch),
            Some(Err(halt)) => {
                queue.halt.get_or_insert(halt);
            }
            None => {
                queue.waiting.clear();
                queue.closed = true;
            }
        }
        drop(queue);
        self.shared.wake.notify_all();
    }
}

/// What the one who goes through the log has to know of a merge.
#[derive(Debug)]
struct Known {
    definition: Vec<u8>,
    sql_foreign_keys: bool,
    /// Each of its events held the whole row.
    whole: bool,
}

/// The merges of a window.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    known: Vec<Known>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The system gave none.
    refused: bool,
    /// What is to be handed over next.
    batch: Batch,
    /// Bytes of rows in all batches, this one included, inflated.
    handed: usize,
}

impl Beside {
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Memory that they take, about: what nobody has taken yet counts whole.
    pub(crate) fn bytes(&self) -> usize {
        let Sums { bytes, taken, .. } = &self.shared.sums;
        let waiting = self.handed.saturating_sub(taken.load(Ordering::Relaxed));
        waiting.saturating_add_signed(bytes.load(Ordering::Relaxed))
    }

    /// Rows of the log that were merged, and how many they came to, as far as they are taken.
    pub(crate) fn rows(&self) -> (u64, u64) {
        let Sums { merged, net, .. } = &self.shared.sums;
        (merged.load(Ordering::Relaxed), net.load(Ordering::Relaxed))
    }

    /// A further one. Gives its number.
    pub(crate) fn add(&mut self, merge: Merge) -> usize {
        let Frame { definition, sql_foreign_keys, .. } = &merge.frame;
        let (definition, sql_foreign_keys) = (definition.clone(), *sql_foreign_keys);
        self.known.push(Known { definition, sql_foreign_keys, whole: true });
        let mut merges = self.shared.merges();
        merges.list.push(merge);
        merges.list.len() - 1
    }

    /// Can these rows be merged with what is there? If not, a window must end before them.
    pub(crate) fn goes_on(&self, at: usize, definition: &[u8], rows: &Rows<'_>) -> bool {
        let sql = rows.flags & FLAG_USE_SQL_FOREIGN_KEY != 0;
        self.known
            .get(at)
            .is_some_and(|known| known.sql_foreign_keys == sql && known.definition == definition)
    }

    /// As [`Merge::fits`], which is asked where the log does not hold whole rows.
    ///
    /// # Errors
    /// What was handed over before could not be taken, or as there.
    pub(crate) fn fits(
        &mut self,
        at: usize,
        rows: &Rows<'_>,
        ask: impl FnOnce(&mut Merge) -> Result<bool, Stop>,
        place: &EventPlace,
    ) -> Result<bool, Halt> {
        let whole = rows.is_whole(rows.present) && rows.present_after.is_none_or(|set| rows.is_whole(set));
        let Some(known) = self.known.get_mut(at) else { return Ok(true) };
        known.whole &= whole;
        if known.whole {
            return Ok(true);
        }
        self.settle()?;
        let mut merges = self.shared.merges();
        let Some(merge) = merges.list.get_mut(at) else { return Ok(true) };
        let table = Arc::clone(&merge.table);
        ask(merge).map_err(|stop| Halt { stop, tables: vec![table], place: place.clone() })
    }

    /// Takes rows.
    ///
    /// # Errors
    /// These, or some that were handed over before, could not be taken.
    pub(crate) fn take(
        &mut self,
        at: usize,
        rows: &Rows<'_>,
        plan: &Arc<RowPlan>,
        place: &EventPlace,
    ) -> Result<(), Halt> {
        // Compressed rows count for what comes out of them: that is what memory is needed for.
        let weight = rows.inflated_len().map_err(|flaw| Halt {
            stop: Stop::Flaw(flaw),
            tables: Vec::new(),
            place: place.clone(),
        })?;
        if weight >= BATCH_BYTES {
            // Not copied: it may be a large part of all memory.
            self.settle()?;
            return self
                .shared
                .merges()
                .take(at, rows, plan, &self.shared.sums)
                .map_err(|(stop, table)| Halt { stop, tables: vec![table], place: place.clone() });
        }
        if self.batch.file.as_ref().is_some_and(|file| !Arc::ptr_eq(file, &place.file)) {
            self.hand_over()?;
        }
        self.batch.add(at, rows, plan, place);
        self.batch.weight += weight;
        self.handed += weight;
        if self.batch.weight >= BATCH_BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), Halt> {
        if self.thread.is_none() && !self.refused {
            let shared = Arc::clone(&self.shared);
            match std::thread::Builder::new().spawn(move || shared.work()) {
                Ok(thread) => self.thread = Some(thread),
                Err(_) => self.refused = true,
            }
        }
        if self.refused {
            return self.take_here();
        }
        let mut queue = self.shared.queue();
        while queue.waiting.len() >= BATCHES && !queue.closed {
            queue = self.shared.wait(queue);
        }
        if queue.closed {
            // Its thread panicked.
            drop(queue);
            self.end();
            return Ok(());
        }
        let next = queue.spare.pop().unwrap_or_default();
        queue.waiting.push_back(std::mem::replace(&mut self.batch, next));
        let halt = queue.halt.take();
        drop(queue);
        self.shared.wake.notify_all();
        halt.map_or(Ok(()), Err)
    }

    fn take_here(&mut self) -> Result<(), Halt> {
        let taken = self.shared.merges().take_batch(&self.batch, &self.shared.sums);
        self.batch.clear();
        taken
    }

    /// Waits until everything is taken.
    fn settle(&mut self) -> Result<(), Halt> {
        if self.thread.is_some() {
            let mut queue = self.shared.queue();
            while (queue.busy || !queue.waiting.is_empty()) && !queue.closed {
                queue = self.shared.wait(queue);
            }
            if let Some(halt) = queue.halt.take() {
                return Err(halt);
            }
        }
        self.take_here()
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// Some rows could not be taken.
    pub(crate) fn finish(&mut self) -> Result<Vec<Merge>, Halt> {
        let settled = self.settle();
        self.end();
        settled?;
        Ok(std::mem::take(&mut self.shared.merges().list))
    }

    fn end(&mut self) {
        self.shared.queue().closed = true;
        self.shared.wake.notify_all();
        let Some(thread) = self.thread.take() else { return };
        if let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.end();
    }
}
