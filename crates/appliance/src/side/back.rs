//! The script that puts rows back out of the copies: one transaction, parents before their children.

use super::compare::Pair;
use super::then::{ForeignKey, Then};
use holdfast_binlog::tables::TableKey;
use holdfast_restore::catalog::{quoted_name, quoted_table};

/// What the session of the script needs: nothing is cut to fit, what stood in a table fits into it again, and the binary
/// log gets rows, since a statement as text would name the copy's schema to servers that have none. Where the format is
/// another one and may not be set, the script stops there. What is read stays locked until the end.
const SESSION: [&str; 7] = [
    "SET NAMES utf8mb4",
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
    "SET @holdfast = IF(@@SESSION.binlog_format = 'ROW', 'DO 0', 'SET SESSION binlog_format = ''ROW''')",
    "PREPARE holdfast FROM @holdfast",
    "EXECUTE holdfast",
    "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
];

/// What is done about a table.
pub(super) enum Deed<'a> {
    /// Its rows are put back.
    Rows(&'a Pair),
    /// It is gone, and is made again out of its copy.
    Again {
        /// The table.
        table: &'a Then,
        /// Its name.
        now: TableKey,
        /// The copy.
        then: TableKey,
        /// The words that make its database with the same defaults.
        defaults: String,
    },
}

impl Deed<'_> {
    fn name(&self) -> &TableKey {
        match self {
            Self::Rows(pair) => &pair.now,
            Self::Again { now, .. } => now,
        }
    }

    fn foreign(&self) -> &[ForeignKey] {
        match self {
            Self::Rows(pair) => &pair.foreign,
            Self::Again { table, .. } => &table.foreign,
        }
    }
}

/// A line of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A comment, one line.
    Remark(String),
    /// A statement, without its end.
    Statement(String),
}

/// The script, or nothing where nothing is to be put back. `deletes`: rows that are new go.
pub(super) fn script(deeds: &[Deed<'_>], deletes: bool) -> Vec<Line> {
    let (order, circle) = parents_first(deeds);
    let mut before = Vec::new();
    let mut lines = Vec::new();
    let mut guards = Vec::new();
    let say = |lines: &mut Vec<Line>, words: String, statement: String| {
        lines.push(Line::Remark(words));
        lines.push(Line::Statement(statement));
    };
    if deletes {
        for deed in order.iter().rev().filter_map(|at| deeds.get(*at)) {
            let Deed::Rows(pair) = deed else { continue };
            if pair.counts.only_now > 0 {
                say(
                    &mut lines,
                    format!("{}: {} rows that are new go", pair.now, pair.counts.only_now),
                    delete(pair),
                );
            }
        }
    }
    for deed in order.iter().filter_map(|at| deeds.get(*at)) {
        match deed {
            Deed::Rows(pair) => {
                guards.extend(pair.guards(deletes).into_iter().map(Line::Statement));
                // Changed rows first: they may hold what a unique key of a row that comes back asks for.
                if pair.counts.changed > 0 {
                    say(
                        &mut lines,
                        format!("{}: {} rows that have other values now", pair.now, pair.counts.changed),
                        update(pair),
                    );
                }
                if pair.counts.only_then > 0 {
                    say(
                        &mut lines,
                        format!("{}: {} rows that are gone", pair.now, pair.counts.only_then),
                        insert(pair),
                    );
                }
            }
            Deed::Again { table, now, then, defaults } => {
                before.push(Line::Statement(format!(
                    "CREATE DATABASE IF NOT EXISTS {} {defaults}",
                    quoted_name(&now.database)
                )));
                say(
                    &mut before,
                    format!("{now} is gone"),
                    format!("CREATE TABLE {}{}", quoted_table(now), String::from_utf8_lossy(&table.whole)),
                );
                let names: Vec<String> =
                    table.columns.iter().map(|column| quoted_name(&column.name)).collect();
                let names = names.join(", ");
                say(
                    &mut lines,
                    format!("{now}: all of its rows"),
                    format!(
                        "INSERT INTO {} ({names}) SELECT {names} FROM {}",
                        quoted_table(now),
                        quoted_table(then)
                    ),
                );
            }
        }
    }
    if lines.is_empty() {
        return lines;
    }
    let mut script: Vec<Line> = SESSION.iter().map(|text| Line::Statement((*text).to_owned())).collect();
    if circle {
        script.push(Line::Remark(
            "Rows refer to each other, so foreign keys are not checked: see what was said of missing parents.".to_owned(),
        ));
        script.push(Line::Statement("SET SESSION foreign_key_checks = 0".to_owned()));
    }
    let guarded = Line::Remark(
        "Error 1242 in one of these: the table is not as it was previewed; make a new script.".to_owned(),
    );
    // What is made again is not rolled back: so they stand before it, and again where their locks are kept.
    if !before.is_empty() && !guards.is_empty() {
        script.push(guarded.clone());
        script.extend(guards.iter().cloned());
    }
    script.append(&mut before);
    script.push(Line::Statement("START TRANSACTION".to_owned()));
    if !guards.is_empty() {
        script.push(guarded);
        script.append(&mut guards);
    }
    script.append(&mut lines);
    script.push(Line::Statement("COMMIT".to_owned()));
    script
}

fn insert(pair: &Pair) -> String {
    let now: Vec<String> = pair.columns.iter().map(|column| quoted_name(&column.now)).collect();
    let then: Vec<String> =
        pair.columns.iter().map(|column| format!("s.{}", quoted_name(&column.then))).collect();
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM {} WHERE {}",
        quoted_table(&pair.now),
        now.join(", "),
        then.join(", "),
        pair.then_beside_now(),
        pair.absent("l", false)
    )
}

/// Of one table, so that it needs no current database, as an alias in a DELETE would.
fn delete(pair: &Pair) -> String {
    let now = quoted_table(&pair.now);
    format!(
        "DELETE FROM {now} WHERE NOT EXISTS (SELECT 1 FROM {} s WHERE {})",
        quoted_table(&pair.then),
        pair.on("s", &now)
    )
}

fn update(pair: &Pair) -> String {
    let mut set: Vec<String> = pair
        .columns
        .iter()
        .map(|column| format!("l.{} = s.{}", quoted_name(&column.now), quoted_name(&column.then)))
        .collect();
    // Else the server would set them to the time of the script.
    set.extend(pair.by_itself.iter().map(|name| format!("l.{0} = l.{0}", quoted_name(name))));
    format!("UPDATE {} SET {} WHERE {}", pair.both(), set.join(", "), pair.changed())
}

/// Positions of the deeds, parents before their children; and whether some refer to each other or to themselves.
fn parents_first(deeds: &[Deed<'_>]) -> (Vec<usize>, bool) {
    let parents: Vec<Vec<usize>> = deeds
        .iter()
        .map(|deed| {
            let place = |key: &ForeignKey| deeds.iter().position(|other| *other.name() == key.parent);
            deed.foreign().iter().filter_map(place).collect()
        })
        .collect();
    in_order(&parents)
}

fn in_order(parents: &[Vec<usize>]) -> (Vec<usize>, bool) {
    let mut left: Vec<usize> = (0..parents.len()).collect();
    let (mut order, mut circle) = (Vec::new(), false);
    while !left.is_empty() {
        let waits = |at: &usize, order: &[usize]| {
            parents.get(*at).is_some_and(|parents| parents.iter().any(|parent| !order.contains(parent)))
        };
        let next = left.iter().position(|at| !waits(at, &order));
        circle |= next.is_none();
        order.push(left.remove(next.unwrap_or(0)));
    }
    (order, circle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_circles_are_known() {
        assert_eq!(in_order(&[vec![2], vec![0], vec![]]), (vec![2, 0, 1], false));
        assert_eq!(in_order(&[vec![], vec![1]]), (vec![0, 1], true));
        let (order, circle) = in_order(&[vec![1], vec![0], vec![]]);
        assert!(circle && order.len() == 3);
    }
}
