//! The proof: is the restored server what the base and the log make of it?
//!
//! It uses nothing that replay says of itself. The base's side is what the server's own recovery
//! reported and what was counted before replay; the log's side is the `Tally`, a reading of the
//! raw events; and both are compared with what the server gives after replay and a restart.

pub(crate) mod several;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_binlog::columns::Column;
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;

use crate::catalog::{Catalog, TableFacts, count_rows, quoted_name, quoted_table};
use crate::cell::{self, Cell};
use crate::error::Result;
use crate::report::{Check, Prove};
use crate::sample::{Last, Sample};
use crate::tally::Tally;

/// Failures of one kind that are listed one by one.
const LISTED: usize = 20;

/// What a proof has to go on.
pub struct Evidence<'a> {
    /// The server after recovery, before replay.
    pub recovered: &'a Catalog,
    /// The server now.
    pub end: &'a Catalog,
    /// What the log says; none if nothing was replayed.
    pub tally: Option<&'a Tally<'a>>,
    /// How much to check.
    pub level: Prove,
    /// Longest time for CHECK TABLE at the standard level.
    pub check_budget: Duration,
    /// False once nobody waits for the proof any more: it ends at the next table.
    pub go_on: &'a dyn Fn() -> bool,
}

/// Runs all checks on the restored server. `others` are connections to it, too, beside which tables are read as a whole.
pub fn prove(conn: &mut Conn, others: &mut [Conn], evidence: &Evidence<'_>) -> Result<Vec<Check>> {
    // Stored bytes as they are, times in one zone.
    conn.execute("SET SESSION character_set_results = NULL")?;
    conn.execute("SET SESSION time_zone = '+00:00'")?;
    // Keys may hold dates that a strict mode does not take in a query.
    conn.execute("SET SESSION sql_mode = ''")?;
    Ok(vec![
        tables_open(conn, evidence)?,
        definitions(evidence),
        accounts(evidence),
        row_counts(conn, others, evidence)?,
        sampled_rows(conn, evidence)?,
        check_tables(conn, others, evidence)?,
    ])
}

fn tables_open(conn: &mut Conn, evidence: &Evidence<'_>) -> Result<Check> {
    let mut failures = Vec::new();
    for table in evidence.end.tables.keys() {
        match conn.query(format!("SELECT 1 FROM {} LIMIT 1", quoted_table(table))) {
            Ok(_) => {}
            Err(holdfast_mysql::Error::Server(error)) => failures.push(format!("{table}: {error}")),
            Err(error) => return Err(error.into()),
        }
    }
    let detail = format!("each of {} tables was opened", evidence.end.tables.len());
    Ok(Check::new("tables-open", detail, bounded(failures), Vec::new()))
}

fn definitions(evidence: &Evidence<'_>) -> Check {
    let (recovered, end) = (&evidence.recovered.tables, &evidence.end.tables);
    let redefining = evidence.tally.map_or(0, |tally| tally.definitions);
    let (mut failures, mut not_checked, mut same) = (Vec::new(), Vec::new(), 0);
    let tallied = |key: &TableKey| evidence.tally.and_then(|tally| tally.tables.get(key));
    for (key, before) in recovered {
        let changed = tallied(key).is_some_and(|table| table.redefined);
        match end.get(key) {
            Some(_) if tallied(key).is_some_and(|table| !table.exists) => {
                failures.push(format!("{key} is there, and the log drops it"));
            }
            Some(now) if now.definition == before.definition => same += 1,
            Some(_) if changed || redefining > 0 => {}
            Some(_) => {
                failures.push(format!("{key}: its definition changed, and no statement of the log does that"))
            }
            None if tallied(key).is_some_and(|table| !table.exists) => {}
            None if redefining > 0 => {
                not_checked.push(format!("{key} is gone, and statements of the log may have done that"));
            }
            None => failures.push(format!("{key} is missing, and no statement of the log drops it")),
        }
    }
    for key in end.keys().filter(|key| !recovered.contains_key(key)) {
        match tallied(key) {
            Some(table) if table.exists && table.redefined => {}
            _ if redefining > 0 => {
                not_checked.push(format!("{key} is new, and statements of the log may have made it"));
            }
            _ => failures.push(format!("{key} is there, and no statement of the log makes it")),
        }
    }
    for (key, table) in evidence.tally.iter().flat_map(|tally| &tally.tables) {
        let made = table.exists && !recovered.contains_key(key) && table.redefined;
        if made && !end.contains_key(key) {
            failures.push(format!("{key} is missing, and the log makes it"));
        }
    }
    let detail = format!(
        "{same} of {} tables are defined as after recovery; the log holds {redefining} statements that define",
        end.len()
    );
    Check::new("definitions", detail, bounded(failures), bounded(not_checked))
}

fn accounts(evidence: &Evidence<'_>) -> Check {
    let (before, now) = (&evidence.recovered.accounts, &evidence.end.accounts);
    let statements = evidence.tally.map_or(0, |tally| tally.account_statements);
    if statements > 0 {
        let detail = format!(
            "{} accounts, {} after recovery; the log holds {statements} statements about accounts",
            now.len(),
            before.len()
        );
        let why = "each account's grants were read, and not compared: the log changes accounts".to_owned();
        return Check::new("accounts", detail, Vec::new(), vec![why]);
    }
    let missing =
        before.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{name} is missing"));
    let extra = now.keys().filter(|name| !before.contains_key(*name)).map(|name| format!("{name} is new"));
    let other = before
        .iter()
        .filter(|(name, lines)| now.get(*name).is_some_and(|found| found != *lines))
        .map(|(name, _)| format!("{name} has other grants than after recovery"));
    let failures = missing.chain(extra).chain(other).collect();
    let detail = format!("{} accounts with their grants are as after recovery", now.len());
    Check::new("accounts", detail, bounded(failures), Vec::new())
}

fn row_counts(conn: &mut Conn, others: &mut [Conn], evidence: &Evidence<'_>) -> Result<Check> {
    if evidence.level < Prove::Standard {
        return Ok(Check::left_out("row-counts", "the level quick counts no rows"));
    }
    let chosen = chosen(evidence);
    if chosen.is_empty() {
        return Ok(Check::left_out(
            "row-counts",
            "the log changed no table; the level full counts all of them",
        ));
    }
    let (mut failures, mut not_checked) = (Vec::new(), Vec::new());
    let (mut tables, mut rows) = (0_u64, 0_u64);
    for (key, found) in several::each(conn, others, &chosen, evidence.go_on, &count_rows)? {
        let expected = match evidence.tally {
            Some(tally) => tally.expected_rows(key),
            None => {
                let counted = evidence.recovered.tables.get(key).and_then(|facts| facts.rows);
                counted.ok_or_else(|| "its rows were not counted after recovery".to_owned())
            }
        };
        match expected {
            Ok(expected) if expected == found => {
                tables += 1;
                rows += found;
            }
            Ok(expected) => failures.push(format!("{key} has {found} rows, and must have {expected}")),
            Err(why) => not_checked.push(format!("{key} ({found} rows): {why}")),
        }
    }
    let detail = format!(
        "{tables} tables with {rows} rows: the rows counted after recovery, and the log's inserts less its deletes, \
         make the rows counted now"
    );
    Ok(Check::new("row-counts", detail, bounded(failures), bounded(not_checked)))
}

/// The tables that counts and CHECK TABLE are for: all of them, or those that the log changed.
fn chosen<'a>(evidence: &'a Evidence<'_>) -> Vec<&'a TableKey> {
    let end = &evidence.end.tables;
    let changed = |key: &&TableKey| evidence.tally.is_some_and(|tally| tally.tables.contains_key(*key));
    end.keys().filter(|key| evidence.level == Prove::Full || changed(key)).collect()
}

fn sampled_rows(conn: &mut Conn, evidence: &Evidence<'_>) -> Result<Check> {
    let Some(tally) = evidence.tally else {
        return Ok(Check::left_out("sampled-rows", "nothing was replayed"));
    };
    let (mut failures, mut not_checked) = (Vec::new(), Vec::new());
    let mut sums = Compared::default();
    for (key, table) in tally.tables.iter().filter(|(_, table)| table.exists) {
        let Some(facts) = evidence.end.tables.get(key) else { continue };
        if facts.key.is_empty() {
            not_checked.push(format!("{key} has no primary key to find its rows by"));
            continue;
        }
        if table.sample.columns().len() != facts.columns.len() {
            // Nothing was noted, or the definition changed after the last change of a row.
            continue;
        }
        sample_of(conn, key, facts, &table.sample, &mut sums, &mut failures, &mut not_checked)?;
    }
    if sums.rows == 0 && failures.is_empty() && not_checked.is_empty() {
        return Ok(Check::left_out("sampled-rows", "the log changed no row that could be read back"));
    }
    let detail = format!(
        "{} rows that the log changed were read back, {} of them absent as they must be; {} values compared, {} of \
         types that are not compared",
        sums.rows, sums.absent, sums.cells, sums.skipped
    );
    Ok(Check::new("sampled-rows", detail, bounded(failures), bounded(not_checked)))
}

#[derive(Debug, Default)]
struct Compared {
    rows: u64,
    absent: u64,
    cells: u64,
    skipped: u64,
}

fn sample_of(
    conn: &mut Conn,
    key: &TableKey,
    facts: &TableFacts,
    sample: &Sample,
    sums: &mut Compared,
    failures: &mut Vec<String>,
    not_checked: &mut Vec<String>,
) -> Result<()> {
    let columns = sample.columns();
    let unsigned = |at: usize| facts.columns.get(at).is_some_and(|column| column.unsigned);
    let expressions: Vec<String> = columns
        .iter()
        .zip(&facts.columns)
        .enumerate()
        .map(|(at, (column, own))| {
            let in_key = facts.key.iter().any(|key| usize::from(*key) == at);
            let readable = !own.opaque && (in_key || !own.generated);
            let text = readable.then(|| cell::expression(column.kind, &quoted_name(&own.name))).flatten();
            text.unwrap_or_else(|| "NULL".to_owned())
        })
        .collect();
    for (bytes, last) in sample.iter() {
        let Some(cells) = key_cells(facts, columns, bytes) else {
            not_checked.push(format!("{key}: rows with a key of a type that can't be asked for"));
            return Ok(());
        };
        let condition: Vec<String> =
            cells.iter().map(|(name, literal, _)| format!("{name} = {literal}")).collect();
        let condition = condition.join(" AND ");
        let select =
            format!("SELECT {} FROM {} WHERE {condition}", expressions.join(", "), quoted_table(key));
        let found = conn.query(select)?;
        // A case-insensitive key finds its other spelling too: it is another row.
        let same_key = |row: &Vec<Option<Vec<u8>>>| {
            cells.iter().all(|(_, _, (at, cell))| cell.is(row.get(*at).and_then(|value| value.as_deref())))
        };
        let row = found.rows.iter().find(|row| same_key(row));
        sums.rows += 1;
        match (last, row) {
            (Last::Gone, None) => sums.absent += 1,
            (Last::Gone, Some(_)) => {
                failures.push(format!("{key}: the row with {condition} is there, and was deleted"))
            }
            (Last::Row { .. } | Last::Large, None) => {
                failures.push(format!("{key}: the row with {condition} is missing"));
            }
            (Last::Large, Some(_)) => sums.skipped += columns.len() as u64,
            (Last::Row { image, plan }, Some(row)) => {
                let Some(image_plan) = plan.after_plan() else { continue };
                image_plan.visit(image, |at, bytes| {
                    let at = usize::from(at);
                    let name = facts.columns.get(at).map_or("?", |column| column.name.as_str());
                    let comparable = expressions.get(at).is_some_and(|text| text != "NULL");
                    let cell = columns.get(at).filter(|_| comparable).and_then(|c| cell::decode(c, unsigned(at), bytes));
                    match cell {
                        Some(cell) if cell.is(row.get(at).and_then(|value| value.as_deref())) => sums.cells += 1,
                        Some(_) => failures.push(format!(
                            "{key}: the row with {condition} has another value in {name} than the log wrote last"
                        )),
                        None => sums.skipped += 1,
                    }
                    true
                });
            }
        }
    }
    Ok(())
}

type KeyCell = (String, String, (usize, Cell));

/// Splits a key into its cells: column name, literal, position and value.
fn key_cells(facts: &TableFacts, columns: &[Column], mut bytes: &[u8]) -> Option<Vec<KeyCell>> {
    let mut out = Vec::with_capacity(facts.key.len());
    for &at in &facts.key {
        let at = usize::from(at);
        let (column, facts) = (columns.get(at)?, facts.columns.get(at).filter(|facts| !facts.opaque)?);
        let (own, rest) = bytes.split_at_checked(column.width.measure(bytes)?)?;
        bytes = rest;
        let value = cell::decode(column, facts.unsigned, Some(own))?;
        let literal = value.literal(column.kind, facts.charset.as_deref())?;
        out.push((quoted_name(&facts.name), literal, (at, value)));
    }
    Some(out)
}

fn check_tables(conn: &mut Conn, others: &mut [Conn], evidence: &Evidence<'_>) -> Result<Check> {
    if evidence.level < Prove::Standard {
        return Ok(Check::left_out("check-table", "the level quick does not read tables as a whole"));
    }
    let mut tables = chosen(evidence);
    if tables.is_empty() {
        return Ok(Check::left_out(
            "check-table",
            "the log changed no table; the level full checks all of them",
        ));
    }
    let began = Instant::now();
    let mut sizes = BTreeMap::new();
    let listed = conn.query(
        "SELECT TABLE_SCHEMA, TABLE_NAME, DATA_LENGTH + INDEX_LENGTH FROM information_schema.TABLES",
    )?;
    for row in 0..listed.rows.len() {
        let text = |column| listed.text(row, column).unwrap_or_default();
        sizes.insert(TableKey { database: text(0), table: text(1) }, text(2).parse().unwrap_or(0_u64));
    }
    tables.sort_by_key(|key| sizes.get(*key).copied().unwrap_or(0));
    let (mut failures, mut not_checked, mut checked) = (Vec::new(), Vec::new(), 0_u64);
    let budget = (evidence.level < Prove::Full).then_some(evidence.check_budget);
    let check = move |conn: &mut Conn, key: &TableKey| {
        if budget.is_some_and(|budget| began.elapsed() > budget) {
            return Ok(("note".to_owned(), "the time for CHECK TABLE was used up".to_owned()));
        }
        // A large table may be silent for long.
        let patience = conn.read_timeout();
        conn.set_read_timeout(Duration::from_secs(24 * 3600));
        let result = conn.query(format!("CHECK TABLE {}", quoted_table(key)))?;
        conn.set_read_timeout(patience);
        let last = result.rows.len().saturating_sub(1);
        Ok((result.text(last, 2).unwrap_or_default(), result.text(last, 3).unwrap_or_default()))
    };
    for (key, (kind, text)) in several::each(conn, others, &tables, evidence.go_on, &check)? {
        match (kind.as_str(), text.as_str()) {
            ("status", "OK" | "Table is already up to date") => checked += 1,
            ("note", _) => not_checked.push(format!("{key}: {text}")),
            _ => failures.push(format!("{key}: {kind}: {text}")),
        }
    }
    let detail = format!("CHECK TABLE found {checked} tables in order, indexes included");
    Ok(Check::new("check-table", detail, bounded(failures), bounded(not_checked)))
}

/// The first entries, and how many more there are.
fn bounded(mut list: Vec<String>) -> Vec<String> {
    let more = list.len().saturating_sub(LISTED);
    if more > 0 {
        list.truncate(LISTED);
        list.push(format!("and {more} more"));
    }
    list
}
