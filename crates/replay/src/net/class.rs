//! Which way a table is replayed, and why.
//!
//! - **Net**: only the end state of each row, in any order (`merge.rs` has the rules).
//! - **Ordered**: the source's events in the source's order, beside other tables.
//! - **Together**: a table whose rows go or change with those of another by a foreign key, where
//!   the log does not say so: all tables that foreign keys join, in order, in one lane, with
//!   the flags of each event as the source had them, so that the server does it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use holdfast_binlog::tables::TableKey;

use super::catalogue::{ForeignKey, TableFacts};
use crate::survey::RowShape;

/// The way of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Net change.
    Net,
    /// In order.
    Ordered {
        /// Why not net.
        why: String,
    },
    /// In order, together with all that foreign keys join it with.
    Together {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net => f.write_str("net change"),
            Self::Ordered { why } => write!(f, "in order, since {why}"),
            Self::Together { why } => {
                write!(f, "in order with all that foreign keys join it with, since {why}")
            }
        }
    }
}

/// What a table alone says against net change.
pub(crate) fn against_net(facts: Option<&TableFacts>, shape: RowShape) -> Option<String> {
    let Some(facts) = facts else { return Some("it is not among the server's tables".to_owned()) };
    let float = |column: &u16| facts.columns.get(usize::from(*column)).is_some_and(|c| c.floating);
    let why = match facts.kind.as_str() {
        "SYSTEM VERSIONED" => "it keeps the history of its rows",
        "SEQUENCE" => "it is a sequence",
        _ if facts.primary.is_empty() && !facts.by_image => "it has no primary key",
        _ if facts.primary.contains(&u16::MAX) => "its primary key is computed",
        _ if facts.primary.iter().any(float) => "its primary key is a floating-point number",
        _ if shape.partial_json => "the log holds partial updates of its JSON columns",
        _ if shape.partial_images && facts.primary.is_empty() => {
            "it has no primary key, and the log holds only some columns of its rows (binlog_row_image)"
        }
        _ if shape.partial_images && facts.uniques.iter().any(Option::is_none) => {
            "it has a unique key over computed values, and the log holds only some columns of its rows (binlog_row_image)"
        }
        _ => return None,
    };
    Some(why.to_owned())
}

/// The tables that foreign keys join, directly or through others, `table` included.
pub(crate) fn joined(table: &TableKey, keys: &[ForeignKey]) -> BTreeSet<TableKey> {
    let mut found = BTreeSet::from([table.clone()]);
    loop {
        let before = found.len();
        for key in keys {
            if found.contains(&key.child) || found.contains(&key.parent) {
                found.insert(key.child.clone());
                found.insert(key.parent.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Does a cascade that the log does not hold reach or leave one of these tables? `ordered`
/// names those whose rows are not looked at one by one.
pub(crate) fn unlogged_cascade(
    tables: &BTreeSet<TableKey>,
    keys: &[ForeignKey],
    shapes: &BTreeMap<TableKey, RowShape>,
    ordered: &dyn Fn(&TableKey) -> bool,
) -> Option<String> {
    keys.iter().filter(|key| tables.contains(&key.parent)).find_map(|key| {
        let shape = shapes.get(&key.parent).copied().unwrap_or_default();
        let what = if key.on_delete && shape.unlogged_deletes {
            "deletes"
        } else if key.on_update && shape.unlogged_updates && ordered(&key.parent) {
            "updates"
        } else {
            return None;
        };
        Some(format!("the source's engine followed {what} in {} to {}, unlogged", key.parent, key.child))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::catalogue::ColumnFacts;

    fn table(name: &str) -> TableKey {
        TableKey { database: "d".to_owned(), table: name.to_owned() }
    }

    fn key(child: &str, parent: &str, on_delete: bool, on_update: bool) -> ForeignKey {
        ForeignKey {
            child: table(child),
            parent: table(parent),
            parent_columns: vec!["id".to_owned()],
            on_delete,
            on_update,
        }
    }

    #[test]
    fn a_plain_table_with_a_key_is_net() {
        let mut facts = TableFacts {
            kind: "BASE TABLE".to_owned(),
            columns: vec![ColumnFacts::default(), ColumnFacts::default()],
            primary: vec![0],
            ..TableFacts::default()
        };
        assert_eq!(against_net(Some(&facts), RowShape::default()), None);
        let partial = RowShape { partial_images: true, ..RowShape::default() };
        assert_eq!(against_net(Some(&facts), partial), None);
        facts.uniques = vec![Some(vec![1]), None];
        assert_eq!(against_net(Some(&facts), RowShape::default()), None);
        assert!(against_net(Some(&facts), partial).unwrap().contains("computed values"));
        facts.uniques.clear();
        facts.columns[0].floating = true;
        assert!(against_net(Some(&facts), RowShape::default()).unwrap().contains("floating"));
        facts.primary.clear();
        assert!(against_net(Some(&facts), RowShape::default()).unwrap().contains("no primary key"));
        facts.by_image = true;
        assert_eq!(against_net(Some(&facts), RowShape::default()), None);
        assert!(against_net(Some(&facts), partial).unwrap().contains("binlog_row_image"));
        assert!(against_net(None, RowShape::default()).is_some());
    }

    #[test]
    fn foreign_keys_join_through_others() {
        let keys = [key("b", "a", false, false), key("c", "b", true, false), key("x", "y", true, true)];
        assert_eq!(joined(&table("a"), &keys), BTreeSet::from([table("a"), table("b"), table("c")]));
        assert_eq!(joined(&table("z"), &keys).len(), 1);
    }

    #[test]
    fn only_a_cascade_that_is_not_in_the_log_counts() {
        let keys = [key("child", "parent", true, false), key("late", "parent", false, true)];
        let tables = joined(&table("parent"), &keys);
        let with = |shape| BTreeMap::from([(table("parent"), shape)]);
        let told = |shape, ordered: bool| unlogged_cascade(&tables, &keys, &with(shape), &|_| ordered);
        assert_eq!(told(RowShape::default(), true), None);
        let deletes = RowShape { unlogged_deletes: true, ..RowShape::default() };
        assert!(told(deletes, false).unwrap().contains("deletes in d.parent to d.child"));
        let updates = RowShape { unlogged_updates: true, ..RowShape::default() };
        // Rows of a net table are looked at one by one: only a changed key counts.
        assert_eq!(told(updates, false), None);
        assert!(told(updates, true).unwrap().contains("updates"));
    }
}
