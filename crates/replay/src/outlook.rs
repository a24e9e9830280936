//! What can be said of a replay before there is a server to ask: which way each table of a range will go, as far as the log
//! tells, and what can't be replayed.
//!
//! Keys and foreign keys are the server's to tell ([`crate::net`] asks it), unless the log holds them
//! (`binlog_row_metadata=FULL`), so some sentences have an "if".

use std::collections::BTreeMap;

use holdfast_binlog::tables::TableKey;

use crate::net::Mode;
use crate::scan::Summary;
use crate::survey::RowShape;

/// The way of a table, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Net change.
    Net,
    /// In order.
    Ordered,
    /// In order, with all that foreign keys join it with, if any of those act.
    Together,
}

/// What is known of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOutlook {
    /// The table.
    pub table: TableKey,
    /// Its way.
    pub way: Way,
    /// Why, or under which condition.
    pub why: String,
    /// Row changes in the range.
    pub rows: u64,
    /// Statements that name it and end a window: definitions.
    pub fences: u64,
}

/// The tables that rows or definitions of a range name. `mariadb`: the server's family.
#[must_use]
pub fn outlook(summary: &Summary, mode: Mode, mariadb: bool) -> Vec<TableOutlook> {
    let mut tables: BTreeMap<&TableKey, (u64, u64)> = BTreeMap::new();
    for (key, changes) in &summary.tables {
        tables.entry(key).or_default().0 += changes.rows.total();
    }
    for (key, fences) in &summary.fences {
        tables.entry(key).or_default().1 += fences;
    }
    let one = |(key, (rows, fences)): (&TableKey, (u64, u64))| {
        let shape = summary.shapes.get(key).copied().unwrap_or_default();
        let (way, why) = way(shape, mode, mariadb);
        TableOutlook { table: key.clone(), way, why, rows, fences }
    };
    tables.into_iter().map(one).collect()
}

fn way(shape: RowShape, mode: Mode, mariadb: bool) -> (Way, String) {
    let keyless = if mariadb { "in order" } else { "by whole rows" };
    let (way, why) = match mode {
        Mode::Serial => (Way::Ordered, "the mode is serial"),
        Mode::Ordered => (Way::Ordered, "the mode is ordered"),
        Mode::Net | Mode::Auto if shape.partial_json => {
            (Way::Ordered, "the log holds partial updates of its JSON columns")
        }
        Mode::Net | Mode::Auto if shape.partial_images && shape.primary_key == Some(false) => (
            Way::Ordered,
            "it has no primary key, and the log holds only some columns of its rows (binlog_row_image)",
        ),
        Mode::Net | Mode::Auto if shape.primary_key == Some(false) && mariadb => {
            (Way::Ordered, "it has no primary key")
        }
        Mode::Net | Mode::Auto if shape.unlogged_deletes || shape.unlogged_updates => {
            let what = if shape.unlogged_deletes { "deletes" } else { "changes of keys" };
            return (
                Way::Together,
                format!(
                    "if foreign keys of other tables follow its {what}, which the log does not say; else as net change"
                ),
            );
        }
        Mode::Net | Mode::Auto if shape.partial_images => (
            Way::Net,
            "by its primary key, as the log holds only some columns of its rows (binlog_row_image): in order where a key of \
             such a row changes, or if it has no primary key",
        ),
        Mode::Net | Mode::Auto => match shape.primary_key {
            Some(true) => (Way::Net, "by its primary key"),
            Some(false) => (Way::Net, "it has no primary key: by whole rows"),
            None => return (Way::Net, format!("by its primary key; if it has none, {keyless}")),
        },
    };
    (way, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_says_of_a_table_decides_its_way() {
        let told = |shape: RowShape, mariadb| way(shape, Mode::Auto, mariadb);
        let plain = RowShape::default();
        assert_eq!(told(plain, false).0, Way::Net);
        assert!(told(plain, false).1.contains("by whole rows") && told(plain, true).1.contains("in order"));
        let keyless = RowShape { primary_key: Some(false), ..plain };
        assert_eq!((told(keyless, false).0, told(keyless, true).0), (Way::Net, Way::Ordered));
        let partial = RowShape { partial_images: true, ..plain };
        assert_eq!(told(partial, false).0, Way::Net);
        assert!(told(partial, false).1.contains("binlog_row_image"));
        assert_eq!(told(RowShape { primary_key: Some(false), ..partial }, false).0, Way::Ordered);
        let cascade = RowShape { unlogged_deletes: true, ..plain };
        assert_eq!(told(cascade, false).0, Way::Together);
        assert_eq!(way(plain, Mode::Ordered, false).0, Way::Ordered);
    }
}
