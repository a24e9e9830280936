//! The tables that row events speak of, remembered between events with the plans to cut their rows.

use std::fmt;
use std::sync::Arc;

use foldhash::HashMap;

use crate::columns::Columns;
use crate::error::Flaw;
use crate::rows::{RowPlan, Rows};
use crate::table_map::TableMap;

/// Most tables remembered at once. A statement names at most 61 (MySQL's join limit) plus
/// what triggers and cascades reach; ids grow for ever, so the rest is forgotten now and then.
pub const TABLES_MAX: usize = 4096;

/// Most plans for one table: one for each combination of columns and kind of change.
/// MINIMAL images have many; beyond this the oldest goes.
const PLANS_MAX: usize = 64;

/// Database and table, in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableKey {
    /// Database.
    pub database: String,
    /// Table.
    pub table: String,
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// What is known of a table id.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub key: Arc<TableKey>,
    /// Its columns.
    pub columns: Columns,
    /// The TABLE_MAP body behind the table id; equal bytes mean an equal definition.
    pub definition: Vec<u8>,
    /// Columns of the primary key, where the log says them.
    pub primary_key: Option<Vec<u16>>,
    plans: Vec<(PlanKey, Arc<RowPlan>)>,
}

type PlanKey = (crate::kind::RowsKind, Vec<u8>, Option<Vec<u8>>);

/// Table ids with their tables.
#[derive(Debug, Default)]
pub struct TableCache {
    tables: HashMap<u64, Table>,
}

impl TableCache {
    /// Takes note of a TABLE_MAP. Cheap when the same definition came before.
    ///
    /// # Errors
    /// Fails on a column type that isn't known.
    pub fn insert(&mut self, map: &TableMap<'_>) -> Result<(), Flaw> {
        if self.tables.get(&map.table_id).is_some_and(|t| t.definition == map.definition) {
            return Ok(());
        }
        if self.tables.len() >= TABLES_MAX {
            self.tables.clear();
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let key = Arc::new(TableKey { database: text(map.database), table: text(map.table) });
        let table = Table {
            key,
            columns: map.columns()?,
            definition: map.definition.to_vec(),
            primary_key: map.primary_key()?,
            plans: Vec::new(),
        };
        self.tables.insert(map.table_id, table);
        Ok(())
    }

    /// The table of an id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Table> {
        self.tables.get(&id)
    }

    /// The plan to cut the rows of an event, and the name of its table.
    ///
    /// # Errors
    /// Fails when no TABLE_MAP came before or it has other columns.
    pub fn plan(&mut self, rows: &Rows<'_>) -> Result<(Arc<TableKey>, Arc<RowPlan>), Flaw> {
        let Some(table) = self.tables.get_mut(&rows.table_id) else {
            let got = format!("none for table id {}", rows.table_id);
            return Err(Flaw { offset: 0, expected: "a TABLE_MAP event before", got });
        };
        let known = table.plans.iter().find(|((kind, present, after), _)| {
            kind.change == rows.kind.change
                && kind.partial == rows.kind.partial
                && present == rows.present
                && after.as_deref() == rows.present_after
        });
        if let Some((_, plan)) = known {
            return Ok((Arc::clone(&table.key), Arc::clone(plan)));
        }
        let plan = Arc::new(rows.plan(&table.columns)?);
        if table.plans.len() >= PLANS_MAX {
            table.plans.remove(0);
        }
        let key = (rows.kind, rows.present.to_vec(), rows.present_after.map(<[u8]>::to_vec));
        table.plans.push((key, Arc::clone(&plan)));
        Ok((Arc::clone(&table.key), plan))
    }

    /// Forgets everything (at the border of two logs: a server that starts anew counts ids anew).
    pub fn clear(&mut self) {
        self.tables.clear();
    }
}
