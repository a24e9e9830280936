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

use std::collections::{BTreeMap, BTreeSet};

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
    /// Triggers, views and functions that the base has; none: not counted yet.
    #[serde(default)]
    programs: Option<u64>,
    /// Tables that were asked for and that the log has renamed since, to others that are restored.
    #[serde(default)]
    moved: BTreeSet<(String, String)>,
}

impl Scope {
    /// What `wanted` means on the server that `base` is a copy of.
    pub fn new(wanted: &Wanted, base: &dyn Base) -> Result<Self> {
        let fold = base.fact("lower_case_table_names").is_some_and(|value| value != "0");
        let mut scope = Self { fold, ..Self::default() };
        scope.refuse_own(wanted)?;
        for name in &wanted.databases {
            files::encoded(name)?;
            scope.databases.insert(scope.folded(name));
        }
        for table in &wanted.tables {
            files::encoded(&table.database)?;
            files::encoded(&table.table)?;
            scope.tables.insert(scope.pair(table));
        }
        scope.refuse_names(wanted, |_| false)?;
        Ok(scope)
    }

    /// The server's own databases are as in the backup, and no table goes there.
    fn refuse_own(&self, wanted: &Wanted) -> Result<()> {
        const OWN: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];
        let tables = wanted.tables.iter().chain(wanted.renamed.iter().map(|(_, to)| to));
        let mut databases = wanted.databases.iter().chain(tables.map(|table| &table.database));
        match databases.find(|name| OWN.iter().any(|own| own.eq_ignore_ascii_case(name))) {
            Some(name) => Err(Error::Tables(format!(
                "the database {name} is the server's own: no table of it is restored alone, and none gets a name in it. \
                 Restore the whole server"
            ))),
            None => Ok(()),
        }
    }

    /// An error if two tables would end with one name. `exists`: tables that are there for another reason than that they
    /// were named.
    pub(crate) fn refuse_names(&self, wanted: &Wanted, exists: impl Fn(&TableKey) -> bool) -> Result<()> {
        let mut ends: BTreeMap<(String, String), (String, String)> = BTreeMap::new();
        let mut new_names = BTreeMap::new();
        for (from, to) in &wanted.renamed {
            if new_names.insert(self.pair(from), to).is_some_and(|other| !self.same(other, to)) {
                return Err(Error::Tables(format!("the table {from} can't get two names")));
            }
        }
        for own in self.tables.iter().chain(&self.parents) {
            let end = new_names.get(own).map_or_else(|| own.clone(), |to| self.pair(to));
            if let Some(other) = ends.insert(end.clone(), own.clone()) {
                return Err(Error::Tables(format!(
                    "the tables {}.{} and {}.{} would both be called {}.{}: give one of them another name",
                    other.0, other.1, own.0, own.1, end.0, end.1
                )));
            }
        }
        for (from, to) in &wanted.renamed {
            let stays = self.contains(to) && !new_names.contains_key(&self.pair(to));
            if stays && !self.same(from, to) && exists(to) {
                return Err(Error::Tables(format!(
                    "the table {from} can't be called {to}: there is such a table already. Give it another name"
                )));
            }
        }
        Ok(())
    }

    /// A key as the source compares it.
    pub(crate) fn key(&self, table: &TableKey) -> TableKey {
        let (database, table) = self.pair(table);
        TableKey { database, table }
    }

    /// The databases that were asked for as a whole.
    pub(crate) fn whole_databases(&self) -> impl Iterator<Item = &str> {
        self.databases.iter().map(String::as_str)
    }

    /// Keeps how many triggers, views and functions the base has: what is needed when the restore goes on.
    pub(crate) fn set_programs(&mut self, programs: u64) {
        self.programs = Some(programs);
    }

    /// Triggers, views and functions of the base; as many as can be where nobody counted.
    pub(crate) fn programs(&self) -> u64 {
        self.programs.unwrap_or(u64::MAX)
    }

    /// Tables that have another name at the end of the log.
    pub(crate) fn set_moved(&mut self, moved: impl Iterator<Item = TableKey>) {
        self.moved = moved.map(|table| self.pair(&table)).collect();
    }

    /// The tables that were asked for and have to be there at the end but are not among `there`.
    pub(crate) fn missing<'t>(&self, there: impl IntoIterator<Item = &'t TableKey>) -> Vec<String> {
        let there: BTreeSet<(String, String)> = there.into_iter().map(|table| self.pair(table)).collect();
        let missing = self.tables.iter().filter(|own| !there.contains(own) && !self.moved.contains(own));
        missing.map(|(database, table)| format!("the table {database}.{table} is not there")).collect()
    }

    /// Are these the same table on the source?
    pub(crate) fn same(&self, one: &TableKey, other: &TableKey) -> bool {
        self.pair(one) == self.pair(other)
    }

    /// Are these the same database on the source?
    pub(crate) fn same_name(&self, one: &str, other: &str) -> bool {
        self.folded(one) == self.folded(other)
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
    files::refuse_elsewhere(&paths)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> TableKey {
        let (database, table) = text.split_once('.').unwrap();
        TableKey { database: database.to_owned(), table: table.to_owned() }
    }

    /// What is said of tables that are asked for under these names, with a parent that came along.
    fn said(tables: &[(&str, &str)], fold: bool, exists: bool) -> String {
        let mut wanted = Wanted::default();
        let mut scope = Scope { fold, ..Scope::default() };
        for (from, to) in tables {
            wanted.tables.push(key(from));
            scope.tables.insert(scope.pair(&key(from)));
            if from != to {
                wanted.renamed.push((key(from), key(to)));
            }
        }
        scope.add_parent(&key("shop.parent"));
        let refused = scope.refuse_own(&wanted).and_then(|()| scope.refuse_names(&wanted, |_| exists));
        refused.err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn no_two_tables_end_with_one_name_and_none_in_the_servers_own_databases() {
        assert_eq!(said(&[("shop.a", "shop.b"), ("shop.b", "shop.a")], false, true), "", "they change names");
        assert_eq!(said(&[("shop.a", "shop.A")], false, true), "");
        for tables in [
            &[("shop.a", "shop.c"), ("shop.b", "shop.c")][..],
            &[("shop.a", "shop.b"), ("shop.b", "shop.b")],
            &[("shop.a", "shop.parent")],
        ] {
            assert!(said(tables, false, false).contains("would both be called"), "{tables:?}");
        }
        assert!(said(&[("shop.a", "shop.b"), ("shop.a", "shop.c")], false, false).contains("two names"));
        assert_eq!(said(&[("shop.a", "shop.X"), ("shop.b", "shop.x")], false, false), "");
        assert!(said(&[("shop.a", "shop.X"), ("shop.b", "shop.x")], true, false).contains("both"));
        for own in ["mysql", "sys", "information_schema", "Performance_Schema"] {
            assert!(said(&[("shop.a", &format!("{own}.a"))], false, false).contains("server's own"), "{own}");
            let own = format!("{own}.user");
            assert!(said(&[(&own, &own)], false, false).contains("server's own"), "{own}");
        }
    }

    #[test]
    fn a_table_of_a_database_that_is_restored_is_not_written_over() {
        let scope = Scope {
            tables: [("shop".to_owned(), "a".to_owned())].into(),
            databases: ["shop".to_owned()].into(),
            ..Scope::default()
        };
        let wanted = Wanted { renamed: vec![(key("shop.a"), key("shop.b"))], ..Wanted::default() };
        let there = |table: &TableKey| *table == key("shop.b");
        assert!(scope.refuse_names(&wanted, there).unwrap_err().to_string().contains("already"));
        scope.refuse_names(&wanted, |_| false).unwrap();
    }

    #[test]
    fn tables_that_are_not_there_at_the_end_are_named() {
        let mut scope = Scope { fold: true, ..Scope::default() };
        for table in ["shop.a", "shop.b", "shop.c"] {
            scope.tables.insert(scope.pair(&key(table)));
        }
        scope.set_moved([key("Shop.B")].into_iter());
        assert_eq!(scope.missing(&[key("shop.A")]), ["the table shop.c is not there"]);
        assert_eq!(scope.programs(), u64::MAX, "nobody counted");
    }
}
