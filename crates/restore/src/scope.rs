//! A restore of some tables: which they are, and what they need.
//!
//! Three things follow from the tables that somebody names. `files.rs` picks the files of the base that have to be laid
//! out, `filter.rs` the events of the log that have to be replayed, `server.rs` makes the private server one that knows
//! nothing else.
//!
//! **Foreign keys.** A table comes with its parents, the tables that its foreign keys refer to, and theirs: with rows of
//! a parent, the source's InnoDB deletes and changes rows of its children, and most sources don't log that. So a child
//! alone would keep rows that the source has no more. The other direction is not needed: whatever happens to a child
//! never changes its parent.
//!
//! **What is left out.** Views, routines and events belong to no table, and accounts to none either: none of them is
//! restored with tables, and triggers are. What can't be told apart (a statement that drags rows of a table that is
//! not restored into one that is) is refused by name before anything is changed.

use std::collections::BTreeSet;

use holdfast_binlog::tables::TableKey;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::seam::Base;

pub(crate) mod files;
pub(crate) mod filter;
pub(crate) mod server;

/// What somebody asked for: tables and whole databases, and the names that tables get at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Tables.
    pub tables: Vec<TableKey>,
    /// Databases, with all their tables.
    pub databases: Vec<String>,
    /// Tables of `tables` that are called otherwise in the restored server: old name, new name.
    pub renamed: Vec<(TableKey, TableKey)>,
}

impl Wanted {
    /// In words, the same for the same wish: it is compared when a restore goes on.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words: Vec<String> = self.databases.iter().map(|name| format!("database {name}")).collect();
        words.extend(self.tables.iter().map(
            |table| match self.renamed.iter().find(|(from, _)| from == table) {
                Some((_, to)) => format!("table {table} as {to}"),
                None => format!("table {table}"),
            },
        ));
        words.sort();
        words.dedup();
        words.join(", ")
    }
}

/// The tables of a restore, parents included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scope {
    tables: BTreeSet<(String, String)>,
    databases: BTreeSet<String>,
    parents: BTreeSet<(String, String)>,
    /// The source takes names in any case for the same.
    fold: bool,
}

impl Scope {
    /// What `wanted` means on the server that `base` is a copy of.
    pub fn new(wanted: &Wanted, base: &dyn Base) -> Result<Self> {
        let fold = base.fact("lower_case_table_names").is_some_and(|value| value != "0");
        let mut scope = Self { fold, ..Self::default() };
        for name in &wanted.databases {
            files::encoded(name)?;
            scope.databases.insert(scope.folded(name));
        }
        for table in &wanted.tables {
            files::encoded(&table.database)?;
            files::encoded(&table.table)?;
            scope.tables.insert(scope.pair(table));
        }
        Ok(scope)
    }

    /// Are these the same table on the source?
    pub(crate) fn same(&self, one: &TableKey, other: &TableKey) -> bool {
        self.pair(one) == self.pair(other)
    }

    fn folded(&self, name: &str) -> String {
        if self.fold { name.to_lowercase() } else { name.to_owned() }
    }

    fn pair(&self, table: &TableKey) -> (String, String) {
        (self.folded(&table.database), self.folded(&table.table))
    }

    /// Is this table restored?
    #[must_use]
    pub fn contains(&self, table: &TableKey) -> bool {
        let pair = self.pair(table);
        self.tables.contains(&pair) || self.parents.contains(&pair) || self.databases.contains(&pair.0)
    }

    /// May tables of this database be restored?
    #[must_use]
    pub fn hosts(&self, database: &str) -> bool {
        let name = self.folded(database);
        let named =
            |tables: &BTreeSet<(String, String)>| tables.iter().any(|(database, _)| *database == name);
        self.databases.contains(&name) || named(&self.tables) || named(&self.parents)
    }

    /// Takes a table in because foreign keys need it. False if it was in.
    pub(crate) fn add_parent(&mut self, table: &TableKey) -> bool {
        !self.contains(table) && self.parents.insert(self.pair(table))
    }

    /// The tables that were asked for by name.
    pub(crate) fn named(&self) -> impl Iterator<Item = TableKey> + '_ {
        self.tables
            .iter()
            .map(|(database, table)| TableKey { database: database.clone(), table: table.clone() })
    }

    /// The tables that came along as parents, as `database.table`.
    #[must_use]
    pub fn parents(&self) -> Vec<String> {
        self.parents.iter().map(|(database, table)| format!("{database}.{table}")).collect()
    }
}

/// What a restore of some tables reads and replays, beside what the whole server's would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What was asked for, in words.
    pub wanted: String,
    /// Tables that came along because foreign keys refer to them; known once the base's dictionary was read.
    pub parents: Vec<String>,
    /// Files of the whole base.
    pub of_files: u64,
    /// Their bytes.
    pub of_bytes: u64,
    /// Transactions that are replayed, those that the base holds already included.
    pub transactions: u64,
    /// Bytes of the events that are replayed.
    pub log_bytes: u64,
}

/// Makes the plan of a whole restore one of some tables: what it lays out, how much of the log it replays, and the space
/// that it needs.
///
/// # Errors
/// Something in the log can't be told apart, or a table does not exist at the target.
pub fn narrow(
    plan: &mut Plan,
    wanted: &Wanted,
    scope: &Scope,
    base: &dyn Base,
    log: &dyn crate::seam::Log,
) -> Result<()> {
    let paths = base.paths().map_err(Error::Base)?;
    let (files, bytes) = files::selected(scope, &paths).1;
    let survey = match plan.log {
        Some(range) => filter::survey(&filter::Whole { log, range }, scope)?,
        None => filter::Survey::default(),
    };
    for table in scope.named() {
        survey.refuse_gone(&table, &plan.target)?;
    }
    let part = Part {
        wanted: wanted.words(),
        parents: scope.parents(),
        of_files: plan.files,
        of_bytes: plan.bytes,
        transactions: survey.transactions,
        log_bytes: survey.bytes,
    };
    let saved = plan.bytes.saturating_sub(bytes);
    let unreplayed = plan.log.map_or(0, |range| range.size.bytes).saturating_sub(survey.bytes);
    plan.space_needed = plan.space_needed.saturating_sub(saved).saturating_sub(unreplayed.saturating_mul(2));
    (plan.files, plan.bytes) = (files, bytes);
    plan.not_restored.push(
        "All other tables, and views, routines and events; accounts are as in the backup. Triggers of the tables are \
         restored."
            .to_owned(),
    );
    plan.not_restored.push(
        "Parents of the tables by foreign keys are restored with them, since rows of a child may go with its parent's and \
         the log does not say so; children are not."
            .to_owned(),
    );
    plan.part = Some(part);
    Ok(())
}
