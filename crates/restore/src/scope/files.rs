//! The files of a base that a restore of some tables lays out.
//!
//! What belongs to the server itself (system tablespaces, undo, redo, the dictionary) always does: it recovers the rest.
//! A table's own files are told by their names: `DB/T.ibd`, partitions `DB/T#p#..`, MariaDB's `T.frm` and the files of its
//! other engines. Full-text indexes lie in files that have their table's number in the name, which only the dictionary
//! knows, so all of a database come along.
//!
//! MariaDB's other InnoDB tables come with their `.frm`: without it the server does not know them, and could not drop
//! what InnoDB's own dictionary still has of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::scope::Scope;

/// Folders of a data directory that are the server's own.
const OWN: [&[u8]; 3] = [b"mysql", b"sys", b"performance_schema"];

/// A name as servers write it in names of files.
pub(crate) fn encoded(name: &str) -> Result<String> {
    let mut out = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => out.push(letter),
            other if other.is_ascii() => out.push_str(&format!("@{:04x}", u32::from(other))),
            _ => {
                return Err(Error::Tables(format!(
                    "'{name}' has letters outside of ASCII, and which files are its can't be told: restore the whole \
                     server"
                )));
            }
        }
    }
    Ok(out)
}

/// The paths to lay out, and how many files and bytes they are.
pub(crate) fn selected(scope: &Scope, paths: &[(Vec<u8>, u64)]) -> (BTreeSet<Vec<u8>>, (u64, u64)) {
    let (of_innodb, renamed) = (innodb_tables(paths), renamed(paths));
    let mut chosen = BTreeSet::new();
    let (mut files, mut bytes) = (0, 0_u64);
    for (path, len) in paths {
        let is_renamed = split(path).is_some_and(|(folder, name)| renamed.contains(&(folder, table(name).0)));
        if is_renamed || takes(scope, path, &of_innodb) {
            chosen.insert(path.clone());
            files += 1;
            bytes = bytes.saturating_add(*len);
        }
    }
    (chosen, (files, bytes))
}

/// An error if MariaDB's base has a table whose file lies outside of the data directory: a `.isl` says where.
pub(crate) fn refuse_elsewhere(paths: &[(Vec<u8>, u64)]) -> Result<()> {
    match paths.iter().find(|(path, _)| path.ends_with(b".isl")) {
        Some((path, _)) => Err(Error::Tables(format!(
            "{} says that a table's file lies outside of the data directory (DATA DIRECTORY), where a restored server may \
             touch nothing. Move that table into the data directory on the source and take a new backup",
            String::from_utf8_lossy(path)
        ))),
        None => Ok(()),
    }
}

/// Views and tables with triggers of MariaDB's base, by its files: a definition without a file of any engine is a view's
/// (or that of a table that keeps no rows on the disk, which can't be told), and triggers have one for their table.
pub(crate) fn programs(paths: &[(Vec<u8>, u64)]) -> u64 {
    let mut of_tables: BTreeSet<(&[u8], &[u8])> = BTreeSet::new();
    let (mut definitions, mut programs) = (Vec::new(), 0_u64);
    let parts = paths.iter().filter_map(|(path, _)| split(path));
    for (folder, name) in parts.filter(|(folder, _)| !OWN.contains(folder)) {
        let (stem, rest) = table(name);
        match rest {
            b".TRG" => programs += 1,
            b".frm" => definitions.push((folder, stem)),
            b".TRN" => {}
            _ => drop(of_tables.insert((folder, stem))),
        }
    }
    programs + definitions.iter().filter(|table| !of_tables.contains(*table)).count() as u64
}

/// Folders of the base, those of databases that nothing is laid out of included: a server drops a database with its folder.
pub(crate) fn folders(paths: &[(Vec<u8>, u64)]) -> BTreeSet<&[u8]> {
    paths.iter().filter_map(|(path, _)| Some(split(path)?.0)).collect()
}

/// Folder and name within it; none for a file of the data directory itself.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().position(|byte| *byte == b'/')?;
    Some((path.get(..at)?, path.get(at + 1..)?))
}

/// Name of the table that a file is of, with what stands behind the name: extension or partition.
fn table(name: &[u8]) -> (&[u8], &[u8]) {
    let at = name.iter().position(|byte| matches!(byte, b'.' | b'#')).unwrap_or(name.len());
    name.split_at_checked(at).unwrap_or((name, &[]))
}

/// Tables that were renamed while mariadb-backup copied them: recovery wants their files under the old name.
fn renamed(paths: &[(Vec<u8>, u64)]) -> BTreeSet<(&[u8], &[u8])> {
    let parts = paths.iter().filter_map(|(path, _)| split(path));
    parts.filter(|(_, name)| name.ends_with(b".ren")).map(|(folder, name)| (folder, table(name).0)).collect()
}

/// Tables whose rows lie in InnoDB's files, by folder.
fn innodb_tables(paths: &[(Vec<u8>, u64)]) -> BTreeMap<&[u8], BTreeSet<&[u8]>> {
    let mut found: BTreeMap<&[u8], BTreeSet<&[u8]>> = BTreeMap::new();
    for (path, _) in paths {
        // mariadb-backup calls the file of a table that is younger than the last checkpoint `.new`.
        let of_innodb = |name: &[u8]| name.ends_with(b".ibd") || name.ends_with(b".new");
        if let Some((folder, name)) = split(path).filter(|(_, name)| of_innodb(name)) {
            found.entry(folder).or_default().insert(table(name).0);
        }
    }
    found
}

fn takes(scope: &Scope, path: &[u8], of_innodb: &BTreeMap<&[u8], BTreeSet<&[u8]>>) -> bool {
    let Some((folder, name)) = split(path) else { return true };
    if OWN.contains(&folder) || folder.starts_with(b"#") {
        return true;
    }
    let (stem, rest) = table(name);
    if name == b"db.opt" {
        return true;
    }
    if scope.owns_file(folder, stem) {
        return true;
    }
    // A trigger's file bears the trigger's name and says of which table it is.
    if rest == b".TRN" {
        return true;
    }
    let definition = [&b".frm"[..], b".par", b".TRG"].contains(&rest);
    if definition && of_innodb.get(folder).is_some_and(|tables| tables.contains(stem)) {
        return true;
    }
    let full_text = stem.len() > 4 && stem.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"fts_"));
    full_text && scope.owns_folder(folder)
}

impl Scope {
    /// Is this the file of a table that is restored? Names as they stand in paths.
    fn owns_file(&self, folder: &[u8], stem: &[u8]) -> bool {
        let is = |name: &str, found: &[u8]| encoded(name).is_ok_and(|name| name.as_bytes() == found);
        self.databases.iter().any(|database| is(database, folder))
            || self
                .tables
                .iter()
                .chain(&self.parents)
                .any(|(database, table)| is(database, folder) && is(table, stem))
    }

    fn owns_folder(&self, folder: &[u8]) -> bool {
        let mut databases = self.tables.iter().chain(&self.parents).map(|(database, _)| database);
        databases.any(|database| encoded(database).is_ok_and(|name| name.as_bytes() == folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(tables: &[(&str, &str)], databases: &[&str]) -> Scope {
        Scope {
            tables: tables.iter().map(|(d, t)| ((*d).to_owned(), (*t).to_owned())).collect(),
            databases: databases.iter().map(|name| (*name).to_owned()).collect(),
            ..Scope::default()
        }
    }

    fn chosen(scope: &Scope, paths: &[&str]) -> Vec<String> {
        let paths: Vec<(Vec<u8>, u64)> = paths.iter().map(|path| (path.as_bytes().to_vec(), 1)).collect();
        selected(scope, &paths).0.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn a_table_comes_with_its_partitions_and_the_server_itself_and_no_table_of_a_like_name() {
        let paths = [
            "ibdata1",
            "mysql.ibd",
            "undo_001",
            "#innodb_redo/#ib_redo1",
            "mysql/general_log.CSV",
            "sys/sys_config.ibd",
            "shop/orders.ibd",
            "shop/orders#p#p0.ibd",
            "shop/orders#p#p1#sp#s0.ibd",
            "shop/orders_old.ibd",
            "shop/items.ibd",
            "shop/fts_000000000000042f_config.ibd",
            "crm/orders.ibd",
            "crm/fts_0000000000000430_config.ibd",
        ];
        let found = chosen(&scope(&[("shop", "orders")], &[]), &paths);
        assert_eq!(found.len(), 10, "{found:?}");
        for left in
            ["shop/orders_old.ibd", "shop/items.ibd", "crm/orders.ibd", "crm/fts_0000000000000430_config.ibd"]
        {
            assert!(!found.contains(&left.to_owned()), "{left}");
        }
        assert_eq!(chosen(&scope(&[], &["crm"]), &paths).len(), 8);
    }

    #[test]
    fn of_mariadbs_other_tables_the_definitions_of_innodbs_come_along() {
        let paths = [
            "aria_log_control",
            "shop/db.opt",
            "shop/a.frm",
            "shop/a.ibd",
            "shop/b.frm",
            "shop/b.ibd",
            "shop/b.TRG",
            "shop/x.TRN",
            "shop/p.frm",
            "shop/p.par",
            "shop/p#P#p0.ibd",
            "shop/m.frm",
            "shop/m.MYD",
            "shop/m.MYI",
            "shop/m.TRG",
            "shop/view.frm",
            "shop/n.frm",
            "shop/n.new",
            "shop/r.ibd",
            "shop/r.ren",
        ];
        let found = chosen(&scope(&[("shop", "a")], &[]), &paths);
        let expected = [
            "aria_log_control",
            "shop/a.frm",
            "shop/a.ibd",
            "shop/b.TRG",
            "shop/b.frm",
            "shop/db.opt",
            "shop/n.frm",
            "shop/p.frm",
            "shop/p.par",
            "shop/r.ibd",
            "shop/r.ren",
            "shop/x.TRN",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn views_and_triggers_are_told_by_files_also_where_they_are_not_laid_out() {
        let of = |paths: &[&str]| {
            programs(&paths.iter().map(|path| (path.as_bytes().to_vec(), 1)).collect::<Vec<_>>())
        };
        let tables = [
            "shop/a.frm",
            "shop/a.ibd",
            "shop/p.frm",
            "shop/p.par",
            "shop/p#P#p0.ibd",
            "shop/m.frm",
            "shop/m.MAD",
        ];
        assert_eq!(of(&tables), 0);
        assert_eq!(of(&["sys/version.frm", "mysql/user.frm", "shop/db.opt"]), 0);
        assert_eq!(of(&["shop/a.frm", "other/a.ibd"]), 1, "a view called as a table of another database");
        assert_eq!(of(&["shop/m.frm", "shop/m.MYD", "shop/m.TRG", "shop/x.TRN"]), 1);
    }

    #[test]
    fn a_table_whose_file_lies_elsewhere_is_named() {
        let error = refuse_elsewhere(&[(b"shop/far.isl".to_vec(), 1)]).unwrap_err().to_string();
        assert!(error.contains("shop/far.isl"), "{error}");
        refuse_elsewhere(&[(b"shop/isl.ibd".to_vec(), 1)]).unwrap();
    }

    #[test]
    fn names_are_told_as_the_servers_write_them_or_refused() {
        assert_eq!(encoded("a-b c$").unwrap(), "a@002db@0020c@0024");
        assert!(encoded("käse").unwrap_err().to_string().contains("whole"));
        let found =
            chosen(&scope(&[("my-shop", "t 1")], &[]), &["my@002dshop/t@00201.ibd", "my@002dshop/t.ibd"]);
        assert_eq!(found, ["my@002dshop/t@00201.ibd"]);
    }
}
