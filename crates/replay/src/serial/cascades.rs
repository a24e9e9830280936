//! Rows that a cascade of MySQL reached while their own delete was under way.
//!
//! MySQL 9.6 and later follow foreign keys in the SQL layer, and log what a key did before the row that it
//! followed. Where keys lead back to that row (it refers to itself; rows refer to each other in a circle), the server
//! logs that row from what it held in memory, although the cascade was there first:
//!
//! - ON DELETE SET NULL: an update of the row, and then its delete as it was before that update. Without a
//!   primary key there is no such row to be found.
//! - ON DELETE CASCADE: two deletes of the same row.
//!
//! The server's own applier ends with 1032 at both (9.7.4). Here a statement's rows are remembered, where keys lead
//! back to their table: the delete is given the row as it is by then, or left out. Only rows that a unique key
//! tells apart are looked at: others may be there several times, but nothing can refer to them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use holdfast_binlog::Flaw;
use holdfast_binlog::kind::RowChange;
use holdfast_binlog::rows::{
    FLAG_NO_FOREIGN_KEY_CHECKS, FLAG_STMT_END, FLAG_USE_SQL_FOREIGN_KEY, ImagePlan, KeyPlan, Row, RowPlan,
    Rows,
};
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;

use super::lead::Lead;
use crate::error::Error;
use crate::net::catalogue::{Catalogue, ForeignKey};

/// Bytes of rows that are remembered of one statement. One that changes more is forgotten, and a row that
/// its server logged wrongly behind that is not found: an error, never a wrong row.
const HELD_MAX: usize = 64 << 20;

/// A table's unique keys, the primary one first: their columns.
type Identities = Arc<Vec<Vec<u16>>>;

/// What became of a row in the statement under way.
#[derive(Debug)]
struct Seen {
    /// The columns that its images carry.
    present: Vec<u8>,
    /// What it was.
    before: Vec<Vec<u8>>,
    /// What it is; `None`: it is gone.
    now: Option<Vec<u8>>,
}

/// What is to be done with a row of the log.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    AsItIs,
    /// The row to be deleted is this one.
    Instead(Vec<u8>),
    LeftOut,
}

/// Rows of the statement under way, in tables to which foreign keys lead back.
#[derive(Debug, Default)]
pub(super) struct Cascades {
    catalogue: Catalogue,
    /// `None`: no keys lead back, or nothing tells its rows apart.
    identities: HashMap<Arc<TableKey>, Option<Identities>>,
    rows: HashMap<(Arc<TableKey>, Vec<u8>), Seen>,
    held: usize,
}

impl Cascades {
    /// A definition ran that may concern these tables; any, if there are none.
    pub(super) fn forget(&mut self, tables: &[TableKey]) {
        self.catalogue.forget(tables);
        self.identities.clear();
    }

    fn end_statement(&mut self) {
        self.rows.clear();
        self.held = 0;
    }

    fn identities(
        &mut self,
        conn: &mut Conn,
        key: &Arc<TableKey>,
        width: u16,
    ) -> Result<Option<Identities>, Error> {
        if let Some(known) = self.identities.get(key) {
            return Ok(known.clone());
        }
        let mut found = None;
        if leads_back(key, self.catalogue.foreign_keys(conn)?)
            && let Some(facts) =
                self.catalogue.table(conn, key)?.filter(|f| f.columns.len() == usize::from(width))
        {
            let primary =
                Some(facts.primary.clone()).filter(|key| !key.is_empty() && !key.contains(&u16::MAX));
            let all: Vec<Vec<u16>> =
                primary.into_iter().chain(facts.uniques.iter().flatten().cloned()).collect();
            found = Some(Arc::new(all)).filter(|all| !all.is_empty());
        }
        self.identities.insert(Arc::clone(key), found.clone());
        Ok(found)
    }

    /// Takes the rows of an event; gives what is to be applied in their place, if it is anything else.
    fn take(
        &mut self,
        key: &Arc<TableKey>,
        keys: &[Vec<u16>],
        plan: &RowPlan,
        rows: &Rows<'_>,
    ) -> Result<Option<Vec<u8>>, Flaw> {
        let plans: Vec<(u8, KeyPlan)> =
            (0u8..).zip(keys).filter_map(|(number, key)| Some((number, plan.first.key(key)?))).collect();
        if plans.is_empty() {
            // Rows that can't be told apart may be any.
            self.end_statement();
            return Ok(None);
        }
        let identity = |image: &[u8]| {
            plans.iter().find_map(|(number, key)| {
                let mut out = vec![*number];
                key.extract(&plan.first, image, &mut out).then_some(out)
            })
        };
        let mut mended: Option<Vec<u8>> = None;
        let mut behind = 0;
        for row in plan.rows(rows.data) {
            let row = row?;
            let verdict = self.row(key, &identity, plan, rows.present, &row);
            if verdict != Verdict::AsItIs && mended.is_none() {
                mended = Some(rows.data.get(..behind).unwrap_or_default().to_vec());
            }
            if let Some(mended) = &mut mended {
                match &verdict {
                    Verdict::AsItIs => mended.extend_from_slice(row.bytes),
                    Verdict::Instead(image) => mended.extend_from_slice(image),
                    Verdict::LeftOut => {}
                }
            }
            behind += row.bytes.len();
        }
        Ok(mended)
    }

    fn row(
        &mut self,
        key: &Arc<TableKey>,
        identity: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
        plan: &RowPlan,
        present: &[u8],
        row: &Row<'_>,
    ) -> Verdict {
        let Some(before) = row.before else {
            // A row that is put in place of one that went.
            if let Some(id) = row.after.and_then(identity) {
                self.rows.remove(&(Arc::clone(key), id));
            }
            return Verdict::AsItIs;
        };
        let Some(id) = identity(before) else { return Verdict::AsItIs };
        let slot = (Arc::clone(key), id);
        let Some(after) = row.after else { return self.delete(slot, present, before) };
        let now = plan
            .after
            .as_ref()
            .filter(|_| !row.partial)
            .and_then(|plan_of_after: &ImagePlan| plan.first.overlay(before, plan_of_after, after));
        let id_now = now.as_deref().and_then(identity);
        let Some(now) = now.filter(|_| id_now.as_ref() == Some(&slot.1)) else {
            // It is another row from here on.
            self.rows.remove(&slot);
            if let Some(id) = id_now {
                self.rows.remove(&(slot.0, id));
            }
            return Verdict::AsItIs;
        };
        self.changed(slot, present, before, Some(now));
        Verdict::AsItIs
    }

    fn delete(&mut self, slot: (Arc<TableKey>, Vec<u8>), present: &[u8], before: &[u8]) -> Verdict {
        if let Some(seen) = self.rows.get_mut(&slot)
            && seen.present == present
            && seen.now.as_deref() != Some(before)
            && seen.before.iter().any(|image| image == before)
        {
            return match seen.now.take() {
                Some(now) => Verdict::Instead(now),
                None => Verdict::LeftOut,
            };
        }
        self.changed(slot, present, before, None);
        Verdict::AsItIs
    }

    fn changed(
        &mut self,
        slot: (Arc<TableKey>, Vec<u8>),
        present: &[u8],
        before: &[u8],
        now: Option<Vec<u8>>,
    ) {
        self.held += 2 * before.len() + slot.1.len() + size_of::<Seen>();
        if self.held > HELD_MAX {
            self.end_statement();
            return;
        }
        let seen = self.rows.entry(slot).or_insert_with(|| Seen {
            present: present.to_vec(),
            before: Vec::new(),
            now: None,
        });
        if seen.present != present || seen.now.as_deref().is_some_and(|now| now != before) {
            *seen = Seen { present: present.to_vec(), before: Vec::new(), now: None };
        }
        seen.before.push(before.to_vec());
        seen.now = now;
    }
}

/// Do foreign keys that act lead from a table back to it?
fn leads_back(table: &TableKey, keys: &[ForeignKey]) -> bool {
    let (mut reached, mut open) = (BTreeSet::new(), vec![table]);
    while let Some(parent) = open.pop() {
        for key in keys.iter().filter(|key| key.parent == *parent && (key.on_delete || key.on_update)) {
            if key.child == *table {
                return true;
            }
            if reached.insert(&key.child) {
                open.push(&key.child);
            }
        }
    }
    false
}

impl Lead<'_> {
    /// The rows that are to be applied in place of those of an event, if they are others.
    pub(super) fn mended(&mut self, rows: &Rows<'_>) -> Result<Option<Vec<u8>>, Error> {
        let by_cascade = rows.flags & FLAG_NO_FOREIGN_KEY_CHECKS != 0;
        let looked_at = match rows.kind.change {
            RowChange::Delete => true,
            RowChange::Update => by_cascade || !self.cascades.rows.is_empty(),
            RowChange::Insert => !self.cascades.rows.is_empty(),
        };
        let logged = rows.flags & FLAG_USE_SQL_FOREIGN_KEY != 0 && !rows.is_dummy() && !rows.kind.compressed;
        let mut mended = None;
        if looked_at
            && logged
            && let Some(key) = self.tables.get(rows.table_id).map(|table| Arc::clone(&table.key))
            && let Some(keys) = self.cascades.identities(self.conn, &key, rows.width)?
        {
            let place = &self.place;
            let flaw = |flaw| Error::Encode { place: place.clone(), flaw };
            let (_, plan) = self.tables.plan(rows).map_err(flaw)?;
            mended = self.cascades.take(&key, &keys, &plan, rows).map_err(flaw)?;
        }
        if rows.flags & FLAG_STMT_END != 0 {
            self.cascades.end_statement();
        }
        Ok(mended)
    }

    /// All rows of an event were left out.
    pub(super) fn without_rows(&mut self, flags: u16) -> Result<(), Error> {
        if flags & FLAG_STMT_END == 0 {
            return Ok(());
        }
        let to_window = self.current_ref().to_window();
        let place = &self.place;
        match &mut self.net {
            Some(net) if to_window => {
                net.window.end_of(flags, place).map_err(|flaw| Error::Encode { place: place.clone(), flaw })
            }
            _ => {
                self.batch.end_statement();
                Ok(())
            }
        }
    }
}
