//! The net change of one table over a window: for each primary key whether the row was there
//! before, and what it is last.
//!
//! | first .. last | net |
//! |---|---|
//! | insert .. insert, update | insert of the last image |
//! | insert .. delete | nothing |
//! | update, delete .. insert, update | update to the last image |
//! | update, delete .. delete | delete |
//!
//! An update of the primary key is a delete and an insert. Where a column of another unique
//! key changed on the way, the update is made a delete and an insert too. All deletes of a
//! table come before all the rest; then what is in the table is, at every moment, a part of what
//! it was before or of what it will be, so no unique key is ever held twice, whatever the
//! order, the collation, or the cycle in which values were passed on.
//!
//! Images may carry some of the columns (`image.rs` lays them over each other). A row of which not all is known can
//! be updated, but not deleted and inserted: where an event gives such a row another key, or may give it another
//! unique value, its window ends, and the table's rows are applied in order in the next one ([`Merge::fits`]).
//!
//! Of a table without a primary key, rows are told by their whole image: what counts is how many rows
//! of each image come and go (`bag.rs`). An update is a delete and an insert there, too.
//!
//! Memory holds one image a row, however often the row changed.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use foldhash::HashMap;
use holdfast_binlog::Flaw;
use holdfast_binlog::columns::Column;
use holdfast_binlog::event::Header;
use holdfast_binlog::kind::RowChange;
use holdfast_binlog::rows::{FLAG_USE_SQL_FOREIGN_KEY, KeyPlan, Row, RowPlan, Rows};
use holdfast_binlog::tables::{Table, TableKey};

use super::bag::Bag;
use super::catalogue::{TableFacts, UniqueKey};
use super::image::{SETS_MAX, SetId, Sets};
use super::key::{Key, Order, counted};
use crate::survey::cascades_are_unlogged;

/// What an entry costs beside its bytes: the slot in the map at its usual fill, the
/// allocation of the image.
pub(super) const ENTRY_BYTES: usize = 112;

/// See [`Merge::fits`].
const PARTLY_KNOWN: &str = "a key changes in a row of which the log holds some columns only";

/// Why a row could not be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The event is damaged.
    Flaw(Flaw),
    /// The rows don't chain as net change needs.
    Surprise(String),
    /// A key that other tables follow changed, and what they did is not in the log.
    Cascade(String),
}

impl From<Flaw> for Stop {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// It was there before the window.
    pub(crate) existed: bool,
    /// A unique key of it changed on the way, or it went and came back: it must go first.
    pub(crate) replaced: bool,
    /// It was inserted in the window: columns that its image leaves out have their defaults. Otherwise they are as
    /// they were before.
    pub(crate) fresh: bool,
    /// The columns that its last image carries.
    pub(crate) set: SetId,
    /// Its last image; `None`: it is gone.
    pub(crate) after: Option<Vec<u8>>,
}

/// An image and the columns that it carries.
type Image<'a> = (SetId, &'a [u8]);

/// The columns of unique keys other than the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unique {
    None,
    Columns(Vec<u16>),
    /// Not told by columns: every update counts as touching them.
    Any,
}

/// What is needed to cut and key the rows of one kind of event.
#[derive(Debug)]
struct Plans {
    plan: Arc<RowPlan>,
    before: Option<KeyPlan>,
    after: Option<KeyPlan>,
    /// The after image carries some column of the key, not all.
    mixed_key: bool,
    counter: Option<KeyPlan>,
    before_set: SetId,
    after_set: SetId,
}

/// A column that gives numbers by itself.
#[derive(Debug)]
struct Counter {
    column: u16,
    unsigned: bool,
    shape: Column,
    /// The highest number that a row came with.
    highest: u64,
    /// The row's key.
    row: Vec<u8>,
}

/// How the events of the table are framed.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// The TABLE_MAP event behind the table id.
    pub(crate) definition: Vec<u8>,
    pub(crate) header: Header,
    /// 1 or 2.
    pub(crate) version: u8,
    pub(crate) width: u16,
    /// The columns of the primary key: one bit each.
    pub(crate) key: Vec<u8>,
    /// Number of columns in it.
    pub(crate) key_cells: usize,
    /// The source's SQL layer did the foreign keys.
    pub(crate) sql_foreign_keys: bool,
}

/// The net change of a table.
#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) table: Arc<TableKey>,
    pub(crate) frame: Frame,
    pub(crate) order: Order,
    pub(crate) changes: HashMap<Key, Change>,
    /// In place of `changes`: rows by their images.
    pub(crate) bag: Option<Bag>,
    pub(crate) has_unique: bool,
    pub(crate) sets: Sets,
    key: Vec<u16>,
    unique: Unique,
    /// Columns whose defaults are computed from others, or anew each time.
    computed_defaults: Vec<u16>,
    /// Columns that children follow when they change.
    followed: Vec<u16>,
    /// Before images must be the last after images, byte by byte.
    strict: bool,
    counter: Option<Counter>,
    plans: Vec<Arc<Plans>>,
    before: Vec<u8>,
    after: Vec<u8>,
    /// Rows of the log that were taken.
    pub(super) taken: u64,
}

impl Merge {
    /// `None` if the rows carry other columns than the server's table has.
    pub(crate) fn new(
        table: &Table,
        header: Header,
        rows: &Rows<'_>,
        facts: &TableFacts,
        followed: Vec<u16>,
    ) -> Option<Self> {
        let columns = table.columns.list();
        let by_image = facts.primary.is_empty() && facts.by_image;
        if columns.len() != facts.columns.len() || facts.primary.is_empty() && !by_image {
            return None;
        }
        let mut key = facts.primary.clone();
        key.sort_unstable();
        key.dedup();
        let typed: Vec<(Column, bool)> =
            columns.iter().copied().zip(facts.columns.iter().map(|c| c.unsigned)).collect();
        let mut key_bits = vec![0u8; columns.len().div_ceil(8)];
        let all: Vec<u16> = (0..columns.len() as u16).collect();
        for column in if by_image { &all } else { &key } {
            *key_bits.get_mut(usize::from(*column) / 8)? |= 1 << (column % 8);
        }
        let json = |column: &Column| matches!(column.kind, holdfast_binlog::columns::ColumnType::Json { .. });
        let counter = facts.columns.iter().position(|column| column.counter).and_then(|at| {
            let (shape, unsigned) = *typed.get(at)?;
            Some(Counter { column: at as u16, unsigned, shape, highest: 0, row: Vec::new() })
        });
        Some(Self {
            table: Arc::clone(&table.key),
            frame: Frame {
                definition: table.definition.clone(),
                header,
                version: rows.kind.version,
                width: rows.width,
                key: key_bits,
                key_cells: key.len(),
                sql_foreign_keys: rows.flags & FLAG_USE_SQL_FOREIGN_KEY != 0,
            },
            order: Order::new(&typed, &facts.primary, &key),
            changes: HashMap::default(),
            bag: by_image.then(Bag::default),
            has_unique: !facts.uniques.is_empty(),
            sets: Sets::new(&table.columns, &facts.columns),
            key,
            unique: unique(&facts.uniques),
            computed_defaults: facts
                .columns
                .iter()
                .enumerate()
                .filter(|(_, column)| column.computed_default)
                .map(|(at, _)| at as u16)
                .collect(),
            followed,
            // Differences of JSON leave holes in what is stored, which an after image does not
            // have; computed values of a before image need not have been computed.
            strict: !columns.iter().any(json) && !facts.columns.iter().any(|column| column.generated),
            counter,
            plans: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            taken: 0,
        })
    }

    /// What the rows that were taken came to, about.
    pub(super) fn net_rows(&self) -> u64 {
        self.bag.as_ref().map_or(self.changes.len(), Bag::len) as u64
    }

    /// The highest number that a row came with, if that row does not raise the counter itself.
    pub(crate) fn counter(&self) -> Option<u64> {
        let counter = self.counter.as_ref().filter(|counter| counter.highest > 0)?;
        if let Some(bag) = &self.bag {
            return (!bag.holds(&counter.row)).then_some(counter.highest);
        }
        let stays = self.key.contains(&counter.column) && self.changes.contains_key(counter.row.as_slice());
        (!stays).then_some(counter.highest)
    }

    /// Takes the rows of an event, uncompressed. Gives the bytes by which memory grew.
    pub(crate) fn take(&mut self, rows: &Rows<'_>, plan: &Arc<RowPlan>) -> Result<isize, Stop> {
        let whole = |present| rows.is_whole(present);
        if self.bag.is_some() && !(whole(rows.present) && rows.present_after.is_none_or(whole)) {
            return Err(Stop::Surprise("an image does not carry the whole row".to_owned()));
        }
        let at = self.plans(plan, rows)?;
        let Some(plans) = self.plans.get(at).map(Arc::clone) else { return Ok(0) };
        let watch = cascades_are_unlogged(rows.flags) && !self.followed.is_empty();
        let mut grown = 0;
        let mut taken = Ok(());
        for row in plan.rows(rows.data) {
            self.taken += 1;
            match row.map_err(Stop::from).and_then(|row| self.row(&plans, &row, watch)) {
                Ok(more) => grown += more,
                Err(stop) => {
                    taken = Err(stop);
                    break;
                }
            }
        }
        taken.map(|()| grown)
    }

    fn plans(&mut self, plan: &Arc<RowPlan>, rows: &Rows<'_>) -> Result<usize, Stop> {
        let known = self.plans.iter().position(|known| Arc::ptr_eq(&known.plan, plan));
        // One that was forgotten is made anew (`TableCache`).
        if let Some(at) = known.or_else(|| self.plans.iter().position(|known| known.plan == *plan)) {
            return Ok(at);
        }
        let incomplete = || Stop::Surprise("an image does not carry the primary key".to_owned());
        let after_plan = plan.after_plan();
        let has_before = plan.change() != RowChange::Insert;
        let keyed = self.bag.is_none();
        let before =
            if has_before && keyed { Some(plan.first.key(&self.key).ok_or_else(incomplete)?) } else { None };
        let after = after_plan.filter(|_| keyed).and_then(|after| after.key(&self.key));
        if keyed && plan.change() == RowChange::Insert && after.is_none() {
            return Err(incomplete());
        }
        let carried = |column: &u16| after_plan.is_some_and(|plan| plan.columns().contains(column));
        let mixed_key = keyed && after.is_none() && self.key.iter().any(carried);
        let counter = match (&self.counter, after_plan) {
            (Some(counter), Some(after)) => after.key(&[counter.column]),
            _ => None,
        };
        let before_set = self.sets.number(rows.present);
        let after_set = self.sets.number(rows.present_after.unwrap_or(rows.present));
        let plan = Arc::clone(plan);
        self.plans.push(Arc::new(Plans { plan, before, after, mixed_key, counter, before_set, after_set }));
        Ok(self.plans.len() - 1)
    }

    /// Are there as many sets of columns as a window may have? Those of each event are numbers of 16 bits, and an event
    /// makes no more than twice as many and two, whatever its rows are.
    pub(crate) fn is_full_of_sets(&self) -> bool {
        self.sets.len() > SETS_MAX
    }

    /// Can the rows of this event, uncompressed, be merged, as far as rows are concerned of which not all is known?
    /// If not, the window must end before them, and the table's rows go in order in the next one.
    pub(crate) fn fits(&mut self, rows: &Rows<'_>, plan: &Arc<RowPlan>) -> Result<bool, Stop> {
        if self.bag.is_some() || rows.kind.change == RowChange::Delete {
            return Ok(true);
        }
        let at = self.plans(plan, rows)?;
        let Some(plans) = self.plans.get(at).map(Arc::clone) else { return Ok(true) };
        if self.sets.is_whole(plans.after_set) {
            return Ok(true);
        }
        let Some(after_plan) = plans.plan.after_plan() else { return Ok(true) };
        let carried = |column: &u16| after_plan.columns().contains(column);
        if rows.kind.change == RowChange::Insert {
            // A merged row has more columns at once than it had when the source computed the rest.
            return Ok(self.computed_defaults.iter().all(carried));
        }
        let unique = match &self.unique {
            Unique::None => false,
            Unique::Any => true,
            Unique::Columns(columns) => columns.iter().any(carried),
        };
        if !unique && plans.after.is_none() && !plans.mixed_key {
            return Ok(true);
        }
        let (mut before_key, mut after_key) = (Vec::new(), Vec::new());
        for row in plans.plan.rows(rows.data) {
            let row = row.map_err(Stop::from)?;
            let (Some(before), Some(after)) = (row.before, row.after) else { continue };
            self.keys(&plans, &row, &mut before_key, &mut after_key)?;
            let changes = before_key != after_key || self.touches_unique(&plans, before, after);
            if changes && self.known(&before_key, (plans.before_set, before)).is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All of a row before a change, and whether what its image leaves out has its default; `None` if that isn't known.
    fn known<'a>(&'a self, key: &[u8], before: Image<'a>) -> Option<(Image<'a>, bool)> {
        if self.sets.is_whole(before.0) {
            return Some((before, false));
        }
        let change = self.changes.get(key)?;
        let known = change.fresh || self.sets.is_whole(change.set);
        known.then_some(((change.set, change.after.as_deref()?), change.fresh))
    }

    /// The keys of a row before and after; empty where there is no such image.
    fn keys(
        &self,
        plans: &Plans,
        row: &Row<'_>,
        before_key: &mut Vec<u8>,
        after_key: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let no_key = || Stop::Surprise("a primary key is NULL".to_owned());
        before_key.clear();
        after_key.clear();
        if let (Some(image), Some(key)) = (row.before, &plans.before)
            && !key.extract(&plans.plan.first, image, before_key)
        {
            return Err(no_key());
        }
        let (Some(after), Some(plan)) = (row.after, plans.plan.after_plan()) else { return Ok(()) };
        if let Some(key) = &plans.after {
            return if key.extract(plan, after, after_key) { Ok(()) } else { Err(no_key()) };
        }
        if !plans.mixed_key {
            after_key.extend_from_slice(before_key);
            return Ok(());
        }
        for column in &self.key {
            let old = || row.before.and_then(|before| plans.plan.first.cell(before, *column));
            let cell = plan.cell(after, *column).or_else(old);
            after_key.extend_from_slice(cell.flatten().ok_or_else(no_key)?);
        }
        Ok(())
    }

    /// May an update have changed one of these columns? It did not change those that its after image leaves out,
    /// unless they are computed.
    fn changed(&self, plans: &Plans, before: &[u8], after: &[u8], columns: &[u16]) -> bool {
        let after_plan = plans.plan.after_plan().unwrap_or(&plans.plan.first);
        columns.iter().any(|column| {
            match (plans.plan.first.cell(before, *column), after_plan.cell(after, *column)) {
                (_, None) => self.sets.is_computed(*column),
                (Some(before), Some(after)) => before != after,
                (None, Some(_)) => true,
            }
        })
    }

    fn touches_unique(&self, plans: &Plans, before: &[u8], after: &[u8]) -> bool {
        match &self.unique {
            Unique::None => false,
            Unique::Any => true,
            Unique::Columns(columns) => self.changed(plans, before, after, columns),
        }
    }

    fn row(&mut self, plans: &Plans, row: &Row<'_>, watch: bool) -> Result<isize, Stop> {
        if row.partial {
            return Err(Stop::Surprise("an image holds differences of JSON".to_owned()));
        }
        if self.bag.is_some() {
            return self.image(plans, row, watch);
        }
        let (mut before_key, mut after_key) =
            (std::mem::take(&mut self.before), std::mem::take(&mut self.after));
        self.keys(plans, row, &mut before_key, &mut after_key)?;
        let (first, last) = (plans.before_set, plans.after_set);
        let done = match (row.before, row.after) {
            (None, Some(after)) => {
                self.count(plans, after, &after_key);
                self.insert(&after_key, (last, after), true)
            }
            (Some(before), None) => self.delete(&before_key, (first, before)),
            (Some(before), Some(after)) => {
                if watch && self.changed(plans, before, after, &self.followed) {
                    Err(self.followed_key())
                } else if before_key == after_key {
                    let touched = self.touches_unique(plans, before, after);
                    self.update(&after_key, (first, before), (last, after), touched)
                } else {
                    self.count(plans, after, &after_key);
                    self.move_to(&before_key, (first, before), &after_key, (last, after))
                }
            }
            (None, None) => Ok(0),
        };
        (self.before, self.after) = (before_key, after_key);
        done
    }

    /// Takes an update that gives a row another key: it is gone under the old one.
    fn move_to(
        &mut self,
        old: &[u8],
        before: Image<'_>,
        new: &[u8],
        after: Image<'_>,
    ) -> Result<isize, Stop> {
        if self.sets.is_whole(after.0) {
            let gone = self.delete(old, before)?;
            return self.insert(new, after, true).map(|more| gone + more);
        }
        let (set, image, fresh) = self.laid_over(old, before, after)?;
        let gone = self.delete(old, before)?;
        self.insert(new, (set, &image), fresh).map(|more| gone + more)
    }

    /// All of a row after an update whose image leaves columns out, and whether what is still left out has its default.
    fn laid_over(
        &mut self,
        key: &[u8],
        before: Image<'_>,
        after: Image<'_>,
    ) -> Result<(SetId, Vec<u8>, bool), Stop> {
        let Some(((set, image), fresh)) = self.known(key, before) else {
            return Err(Stop::Surprise(PARTLY_KNOWN.to_owned()));
        };
        let image = image.to_vec();
        let (set, image) = self.sets.overlay((set, &image), after);
        Ok((set, image, fresh))
    }

    fn followed_key(&self) -> Stop {
        Stop::Cascade(format!("the source's engine followed a changed key of {}, unlogged", self.table))
    }

    /// Takes a row that its image tells.
    fn image(&mut self, plans: &Plans, row: &Row<'_>, watch: bool) -> Result<isize, Stop> {
        if let (true, Some(before), Some(after)) = (watch, row.before, row.after)
            && self.changed(plans, before, after, &self.followed)
        {
            return Err(self.followed_key());
        }
        if let Some(after) = row.after {
            self.count(plans, after, after);
        }
        let Some(bag) = &mut self.bag else { return Ok(0) };
        let gone = row.before.map_or(0, |before| bag.take(before));
        Ok(gone + row.after.map_or(0, |after| bag.put(after)))
    }

    fn count(&mut self, plans: &Plans, after: &[u8], row: &[u8]) {
        let (Some(counter), Some(key), Some(plan)) =
            (&mut self.counter, &plans.counter, plans.plan.after_plan())
        else {
            return;
        };
        let mut cell = Vec::new();
        if key.extract(plan, after, &mut cell)
            && let Some(value) = counted(&counter.shape, counter.unsigned, &cell)
            && value > counter.highest
        {
            counter.highest = value;
            counter.row.clear();
            counter.row.extend_from_slice(row);
        }
    }

    fn insert(&mut self, key: &[u8], (set, after): Image<'_>, fresh: bool) -> Result<isize, Stop> {
        match self.changes.get_mut(key) {
            None => {
                let after = Some(after.to_vec());
                Ok(self.add(key, Change { existed: false, replaced: false, fresh, set, after }))
            }
            Some(change) if change.after.is_some() => {
                Err(Stop::Surprise("a row appears that is there already".to_owned()))
            }
            Some(change) => {
                change.replaced |= change.existed;
                (change.fresh, change.set, change.after) = (fresh, set, Some(after.to_vec()));
                Ok(after.len() as isize)
            }
        }
    }

    fn delete(&mut self, key: &[u8], before: Image<'_>) -> Result<isize, Stop> {
        let Some(change) = self.changes.get_mut(key) else {
            let change = Change { existed: true, replaced: false, fresh: false, set: before.0, after: None };
            return Ok(self.add(key, change));
        };
        let last = change.after.take();
        let len = chained(&self.sets, self.strict, (change.set, last.as_deref()), before)?;
        if !change.existed {
            self.changes.remove(key);
            return Ok(-((len + ENTRY_BYTES) as isize));
        }
        Ok(-(len as isize))
    }

    fn update(
        &mut self,
        key: &[u8],
        before: Image<'_>,
        after: Image<'_>,
        touched: bool,
    ) -> Result<isize, Stop> {
        let whole = self.sets.is_whole(after.0);
        let Some(change) = self.changes.get_mut(key) else {
            let (set, image) = match touched && !whole {
                true => {
                    let (set, image, _) = self.laid_over(key, before, after)?;
                    (set, image)
                }
                false => (after.0, after.1.to_vec()),
            };
            let change = Change { existed: true, replaced: touched, fresh: false, set, after: Some(image) };
            return Ok(self.add(key, change));
        };
        let len = chained(&self.sets, self.strict, (change.set, change.after.as_deref()), before)?;
        let Some(last) = &mut change.after else { return Ok(0) };
        let known = change.fresh || self.sets.is_whole(change.set);
        if touched && change.existed && !whole && !known {
            // What the window holds of it is not enough to insert it.
            if !self.sets.is_whole(before.0) {
                return Err(Stop::Surprise(PARTLY_KNOWN.to_owned()));
            }
            (change.set, *last) = self.sets.overlay(before, after);
        } else if whole || change.set == after.0 {
            last.clear();
            last.extend_from_slice(after.1);
            change.set = after.0;
        } else {
            (change.set, *last) = self.sets.overlay((change.set, last), after);
        }
        change.replaced |= touched && change.existed;
        Ok(last.len() as isize - len as isize)
    }

    fn add(&mut self, key: &[u8], change: Change) -> isize {
        let key = Key::new(key);
        let bytes = ENTRY_BYTES + key.heap() + change.after.as_ref().map_or(0, Vec::len);
        if let Entry::Vacant(slot) = self.changes.entry(key) {
            slot.insert(change);
        }
        bytes as isize
    }
}

/// Is this before image what the row was last? Gives the length of the latter.
fn chained(
    sets: &Sets,
    strict: bool,
    (set, last): (SetId, Option<&[u8]>),
    before: Image<'_>,
) -> Result<usize, Stop> {
    match last {
        None => Err(Stop::Surprise("a row changes that is gone".to_owned())),
        Some(last) if strict && !sets.agree((set, last), before) => {
            Err(Stop::Surprise("a row changed in a way that the log does not hold".to_owned()))
        }
        Some(last) => Ok(last.len()),
    }
}

fn unique(keys: &[UniqueKey]) -> Unique {
    let mut columns = Vec::new();
    for key in keys {
        match key {
            Some(key) => columns.extend_from_slice(key),
            None => return Unique::Any,
        }
    }
    columns.sort_unstable();
    columns.dedup();
    if columns.is_empty() { Unique::None } else { Unique::Columns(columns) }
}
