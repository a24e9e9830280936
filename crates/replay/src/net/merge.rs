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
//! Of a table without a primary key, rows are told by their whole image: what counts is how many rows
//! of each image come and go (`bag.rs`). An update is a delete and an insert there, too.
//!
//! Memory holds one image a row, however often the row changed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use holdfast_binlog::Flaw;
use holdfast_binlog::columns::Column;
use holdfast_binlog::event::Header;
use holdfast_binlog::kind::RowChange;
use holdfast_binlog::rows::{FLAG_USE_SQL_FOREIGN_KEY, KeyPlan, Row, RowPlan, Rows};
use holdfast_binlog::tables::{Table, TableKey};

use super::bag::Bag;
use super::catalogue::{TableFacts, UniqueKey};
use super::key::{Key, Order, counted};
use crate::survey::cascades_are_unlogged;

/// What an entry costs beside its bytes: the slot in the map at its usual fill, the
/// allocation of the image.
pub(super) const ENTRY_BYTES: usize = 112;

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
    /// Its last image; `None`: it is gone.
    pub(crate) after: Option<Vec<u8>>,
}

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
    counter: Option<KeyPlan>,
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
    /// The columns of images: one bit each.
    pub(crate) present: Vec<u8>,
    /// The same for the primary key.
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
    key: Vec<u16>,
    unique: Unique,
    /// Columns that children follow when they change.
    followed: Vec<u16>,
    /// Before images must be the last after images, byte by byte.
    strict: bool,
    counter: Option<Counter>,
    plans: Vec<Plans>,
    before: Vec<u8>,
    after: Vec<u8>,
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
        let present = rows.present_after.unwrap_or(rows.present);
        let missing = |at: &usize| present.get(at / 8).is_none_or(|byte| byte >> (at % 8) & 1 == 0);
        let computed = |at: usize| facts.columns.get(at).is_some_and(|column| column.generated);
        // Computed values may be left out of a whole image; a delete says nothing of after images.
        if rows.kind.change != RowChange::Delete && (0..columns.len()).filter(missing).any(|at| !computed(at))
        {
            return None;
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
                present: if rows.kind.change == RowChange::Delete { Vec::new() } else { present.to_vec() },
                key: key_bits,
                key_cells: key.len(),
                sql_foreign_keys: rows.flags & FLAG_USE_SQL_FOREIGN_KEY != 0,
            },
            order: Order::new(&typed, &facts.primary, &key),
            changes: HashMap::new(),
            bag: by_image.then(Bag::default),
            has_unique: !facts.uniques.is_empty(),
            key,
            unique: unique(&facts.uniques),
            followed,
            // Differences of JSON leave holes in what is stored, which an after image does not
            // have; computed values of a before image need not have been computed.
            strict: !columns.iter().any(json) && !facts.columns.iter().any(|column| column.generated),
            counter,
            plans: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
        })
    }

    /// Can these rows be merged with what is here? If not, a window must end before them.
    pub(crate) fn goes_on(&self, table: &Table, rows: &Rows<'_>) -> bool {
        let sql = rows.flags & FLAG_USE_SQL_FOREIGN_KEY != 0;
        self.frame.sql_foreign_keys == sql && self.frame.definition == table.definition
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
        if rows.kind.change != RowChange::Delete {
            let present = rows.present_after.unwrap_or(rows.present);
            if self.frame.present.is_empty() {
                self.frame.present = present.to_vec();
            } else if self.frame.present != present {
                return Err(Stop::Surprise("images carry other columns than before".to_owned()));
            }
        }
        let whole = |present: &[u8]| {
            present.iter().map(|byte| byte.count_ones()).sum::<u32>() >= u32::from(rows.width)
        };
        if self.bag.is_some() && !(whole(rows.present) && rows.present_after.is_none_or(whole)) {
            return Err(Stop::Surprise("an image does not carry the whole row".to_owned()));
        }
        let at = self.plans(plan)?;
        let Some(plans) = self.plans.get_mut(at) else { return Ok(0) };
        let plans = std::mem::replace(
            plans,
            Plans { plan: Arc::clone(plan), before: None, after: None, counter: None },
        );
        let watch = cascades_are_unlogged(rows.flags) && !self.followed.is_empty();
        let mut grown = 0;
        let mut taken = Ok(());
        for row in plan.rows(rows.data) {
            match row.map_err(Stop::from).and_then(|row| self.row(&plans, &row, watch)) {
                Ok(more) => grown += more,
                Err(stop) => {
                    taken = Err(stop);
                    break;
                }
            }
        }
        if let Some(slot) = self.plans.get_mut(at) {
            *slot = plans;
        }
        taken.map(|()| grown)
    }

    fn plans(&mut self, plan: &Arc<RowPlan>) -> Result<usize, Stop> {
        if let Some(at) = self.plans.iter().position(|known| Arc::ptr_eq(&known.plan, plan)) {
            return Ok(at);
        }
        let incomplete = || Stop::Surprise("an image does not carry the primary key".to_owned());
        let after_plan = plan.after_plan();
        let has_before = plan.change() != RowChange::Insert;
        let keyed = self.bag.is_none();
        let before =
            if has_before && keyed { Some(plan.first.key(&self.key).ok_or_else(incomplete)?) } else { None };
        let after = match after_plan.filter(|_| keyed) {
            Some(after) => Some(after.key(&self.key).ok_or_else(incomplete)?),
            None => None,
        };
        let counter = match (&self.counter, after_plan) {
            (Some(counter), Some(after)) => after.key(&[counter.column]),
            _ => None,
        };
        self.plans.push(Plans { plan: Arc::clone(plan), before, after, counter });
        Ok(self.plans.len() - 1)
    }

    fn row(&mut self, plans: &Plans, row: &Row<'_>, watch: bool) -> Result<isize, Stop> {
        let no_key = || Stop::Surprise("a primary key is NULL".to_owned());
        if row.partial {
            return Err(Stop::Surprise("an image holds differences of JSON".to_owned()));
        }
        if self.bag.is_some() {
            return self.image(plans, row, watch);
        }
        let (mut before_key, mut after_key) =
            (std::mem::take(&mut self.before), std::mem::take(&mut self.after));
        before_key.clear();
        after_key.clear();
        if let (Some(image), Some(key)) = (row.before, &plans.before)
            && !key.extract(&plans.plan.first, image, &mut before_key)
        {
            return Err(no_key());
        }
        if let (Some(image), Some(key), Some(plan)) = (row.after, &plans.after, plans.plan.after_plan())
            && !key.extract(plan, image, &mut after_key)
        {
            return Err(no_key());
        }
        let done = match (row.before, row.after) {
            (None, Some(after)) => {
                self.count(plans, after, &after_key);
                self.insert(&after_key, after)
            }
            (Some(before), None) => self.delete(&before_key, before),
            (Some(before), Some(after)) => {
                let after_plan = plans.plan.after_plan().unwrap_or(&plans.plan.first);
                if watch && plans.plan.first.differ(before, after_plan, after, &self.followed) {
                    Err(self.followed_key())
                } else if before_key == after_key {
                    let touched = match &self.unique {
                        Unique::None => false,
                        Unique::Any => true,
                        Unique::Columns(columns) => {
                            plans.plan.first.differ(before, after_plan, after, columns)
                        }
                    };
                    self.update(&after_key, before, after, touched)
                } else {
                    self.count(plans, after, &after_key);
                    let gone = self.delete(&before_key, before)?;
                    self.insert(&after_key, after).map(|more| gone + more)
                }
            }
            (None, None) => Ok(0),
        };
        (self.before, self.after) = (before_key, after_key);
        done
    }

    fn followed_key(&self) -> Stop {
        Stop::Cascade(format!("the source's engine followed a changed key of {}, unlogged", self.table))
    }

    /// Takes a row that its image tells.
    fn image(&mut self, plans: &Plans, row: &Row<'_>, watch: bool) -> Result<isize, Stop> {
        if let (true, Some(before), Some(after)) = (watch, row.before, row.after) {
            let after_plan = plans.plan.after_plan().unwrap_or(&plans.plan.first);
            if plans.plan.first.differ(before, after_plan, after, &self.followed) {
                return Err(self.followed_key());
            }
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

    fn insert(&mut self, key: &[u8], after: &[u8]) -> Result<isize, Stop> {
        match self.changes.get_mut(key) {
            None => {
                Ok(self.add(key, Change { existed: false, replaced: false, after: Some(after.to_vec()) }))
            }
            Some(change) if change.after.is_some() => {
                Err(Stop::Surprise("a row appears that is there already".to_owned()))
            }
            Some(change) => {
                change.replaced |= change.existed;
                change.after = Some(after.to_vec());
                Ok(after.len() as isize)
            }
        }
    }

    fn delete(&mut self, key: &[u8], before: &[u8]) -> Result<isize, Stop> {
        let strict = self.strict;
        let Some(change) = self.changes.get_mut(key) else {
            return Ok(self.add(key, Change { existed: true, replaced: false, after: None }));
        };
        let last = change.after.take();
        let len = chained(strict, last.as_deref(), before)?;
        if !change.existed {
            self.changes.remove(key);
            return Ok(-((len + ENTRY_BYTES) as isize));
        }
        Ok(-(len as isize))
    }

    fn update(&mut self, key: &[u8], before: &[u8], after: &[u8], touched: bool) -> Result<isize, Stop> {
        let strict = self.strict;
        let Some(change) = self.changes.get_mut(key) else {
            return Ok(
                self.add(key, Change { existed: true, replaced: touched, after: Some(after.to_vec()) })
            );
        };
        let len = chained(strict, change.after.as_deref(), before)?;
        change.replaced |= touched && change.existed;
        if let Some(last) = &mut change.after {
            last.clear();
            last.extend_from_slice(after);
        }
        Ok(after.len() as isize - len as isize)
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
fn chained(strict: bool, last: Option<&[u8]>, before: &[u8]) -> Result<usize, Stop> {
    match last {
        None => Err(Stop::Surprise("a row changes that is gone".to_owned())),
        Some(last) if strict && last != before => {
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
