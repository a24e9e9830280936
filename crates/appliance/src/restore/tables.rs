//! `--table` and `--database`: a restore of some tables.

use super::base::StoredBase;
use super::log::ArchivedLog;
use super::{Options, Plan, bases, restore_error};
use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use holdfast_binlog::tables::TableKey;
use holdfast_format::record::{ServerKind, ServerRecord};
use holdfast_restore::{Base, Scope, Wanted};

/// The tables that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables(pub(crate) Wanted);

impl Tables {
    /// Reads `DB.T`, `DB.T:NEW`, `DB.T:DB2.NEW`, and names of databases. None where none are named.
    ///
    /// # Errors
    /// `Usage` with what is wrong.
    pub fn parse(tables: &[String], databases: &[String]) -> Result<Option<Self>> {
        let mut wanted = Wanted { databases: databases.to_vec(), ..Wanted::default() };
        for text in tables {
            let (from, to) = match text.split_once(':') {
                Some((from, to)) => (from, Some(to)),
                None => (text.as_str(), None),
            };
            let wrong = || {
                Error::usage(format!("'{text}' is no table."))
                    .with_next("write DATABASE.TABLE, or DATABASE.TABLE:NEW for another name at the end")
            };
            let key = |name: &str, database: Option<&str>| {
                let (database, table) = match (name.split_once('.'), database) {
                    (Some(parts), _) => parts,
                    (None, Some(database)) => (database, name),
                    (None, None) => return Err(wrong()),
                };
                if database.is_empty() || table.is_empty() {
                    return Err(wrong());
                }
                Ok(TableKey { database: database.to_owned(), table: table.to_owned() })
            };
            let from = key(from, None)?;
            if let Some(to) = to {
                let to = key(to, Some(&from.database))?;
                wanted.renamed.push((from.clone(), to));
            }
            wanted.tables.push(from);
        }
        if let Some(name) = databases.iter().find(|name| name.is_empty() || name.contains('.')) {
            return Err(
                Error::usage(format!("'{name}' is no database.")).with_next("--database takes a name")
            );
        }
        let none = wanted.tables.is_empty() && wanted.databases.is_empty();
        Ok((!none).then_some(Self(wanted)))
    }
}

/// Makes a plan one of some tables, where some are wanted.
pub(super) fn narrow(
    catalogue: &Catalogue,
    server: &ServerRecord,
    plan: &mut Plan,
    options: &Options,
    base: &StoredBase,
    log: &ArchivedLog<'_>,
) -> Result<()> {
    let Some(Tables(wanted)) = &options.tables else { return Ok(()) };
    if matches!(server.kind, ServerKind::Folder { .. }) && base.fact("version").is_none() {
        return Err(Error::usage(format!(
            "'{}' is a folder that is no server's: it has no tables.",
            server.name
        ))
        .with_next("leave --table and --database away"));
    }
    let told = |error| restore_error(catalogue, error);
    let scope = Scope::new(wanted, base).map_err(told)?;
    holdfast_restore::narrow(plan, wanted, &scope, base, log).map_err(told)
}

/// The tables of a plan that was made already.
pub(super) fn scope(
    catalogue: &Catalogue,
    server: &ServerRecord,
    plan: &Plan,
    options: &Options,
) -> Result<Option<Scope>> {
    let Some(Tables(wanted)) = &options.tables else { return Ok(None) };
    let bases = bases(catalogue, server);
    let Some(base) = bases.iter().find(|base| base.id() == plan.base) else { return Ok(None) };
    Scope::new(wanted, base).map(Some).map_err(|error| restore_error(catalogue, error))
}

/// Transactions that are replayed.
pub(super) fn transactions(plan: &Plan) -> Option<u64> {
    let whole = plan.log.map(|range| range.size.transactions);
    plan.part.as_ref().map(|part| part.transactions).or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_with_their_database_and_may_get_another_name() {
        let of = |tables: &[&str]| {
            let tables: Vec<String> = tables.iter().map(|text| (*text).to_owned()).collect();
            Tables::parse(&tables, &[])
        };
        assert_eq!(of(&[]).unwrap(), None);
        let Tables(wanted) = of(&["shop.a", "shop.b:c", "shop.d:old.d"]).unwrap().unwrap();
        assert_eq!(wanted.words(), "table shop.a, table shop.b as shop.c, table shop.d as old.d");
        for wrong in ["a", ".a", "shop.", "shop.a:", "shop.a:.b"] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
        assert!(Tables::parse(&[], &["a.b".to_owned()]).is_err());
    }
}
