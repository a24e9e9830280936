//! Applying an undo: every row is looked at first, and again under its lock, in the one transaction that changes it.

use super::literal::SESSION;
use super::plan::{RowKey, Step, Table};
use super::{How, said};
use crate::changes::Image;
use crate::error::{Error, Result};
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// Rows in conflict that are told one by one.
const CONFLICTS_MAX: usize = 100;

/// Seconds to wait for a row that somebody else holds.
const LOCK_WAIT_S: u32 = 5;

/// A row that is not as the transaction left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// `schema.table`.
    pub table: String,
    /// Its key.
    pub row: String,
    /// What is different.
    pub why: String,
}

/// What became of an undo.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// It was committed.
    pub applied: bool,
    /// Nothing was left to do: every row is as it was before the transactions.
    pub already_undone: bool,
    /// Changes of rows that were, or would be, undone.
    pub rows: u64,
    /// Changes that are left out, because their rows are in conflict.
    pub skipped: u64,
    /// Rows that changed since, the first ones.
    pub conflicts: Vec<Conflict>,
    /// How many they are in all.
    pub conflicts_all: u64,
    /// What whoever runs this should know.
    pub warnings: Vec<String>,
}

type Place = (TableKey, RowKey);

/// What the preview found.
#[derive(Default)]
struct Preview {
    conflicts: Vec<Conflict>,
    conflicts_all: u64,
    /// Rows that are left alone.
    blocked: HashSet<Place>,
    /// What the rows with a key will be; none: gone.
    states: HashMap<Place, Option<Image>>,
    /// Rows without a key that earlier steps make.
    made: HashMap<Place, u64>,
    /// Rows without a key that steps need to be there.
    needed: HashMap<Place, u64>,
}

/// Looks, and applies if nothing is in the way or that is left out.
pub(super) fn run(conn: &mut Conn, steps: &[Step], how: How, warnings: Vec<String>) -> Result<Applied> {
    for statement in SESSION {
        conn.execute(statement).map_err(|e| said(conn, &e))?;
    }
    conn.execute(format!("SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_S}"))
        .map_err(|e| said(conn, &e))?;
    let mut preview = Preview::default();
    for step in steps {
        preview.look(conn, step)?;
    }
    let mut answer = Applied {
        applied: false,
        already_undone: false,
        rows: 0,
        skipped: 0,
        conflicts: Vec::new(),
        conflicts_all: 0,
        warnings,
    };
    if preview.conflicts_all > 0 {
        if preview.is_done(conn, steps)? {
            return Ok(Applied { already_undone: true, ..answer });
        }
        // What is left alone is told by the keys' bytes, and the server finds rows by their collation.
        equal_keys(conn, steps, how.skip_conflicts)?;
    }
    preview.spread(steps)?;
    let mut kept = Vec::new();
    for step in steps {
        match places(step)?.iter().any(|place| preview.blocked.contains(place)) {
            true => answer.skipped += 1,
            false => kept.push(step),
        }
    }
    answer.rows = kept.len() as u64;
    answer.conflicts = preview.conflicts;
    answer.conflicts_all = preview.conflicts_all;
    let in_the_way = answer.conflicts_all > 0 && !how.skip_conflicts;
    if how.dry_run || in_the_way || kept.is_empty() {
        return Ok(answer);
    }
    conn.execute("START TRANSACTION").map_err(|e| said(conn, &e))?;
    if let Err(error) =
        kept.iter().try_for_each(|step| apply(conn, step)).and_then(|()| all_left(conn, &kept))
    {
        // Where the connection is gone, the server rolls back by itself.
        let _ = conn.execute("ROLLBACK");
        return Err(error);
    }
    conn.execute("COMMIT").map_err(|e| {
        Error::failed(format!("{} Whether the undo was committed is not known.", said(conn, &e).message))
            .with_next("run the same command again: it says whether the rows are as they were")
    })?;
    answer.applied = true;
    Ok(answer)
}

/// The rows of a step: the one that is there and the one that will be, if they have different keys.
fn places(step: &Step) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for image in step.now.iter().chain(&step.then) {
        let place = (step.table.logged.key.clone(), step.table.row_key(image)?);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    Ok(places)
}

impl Preview {
    fn look(&mut self, conn: &mut Conn, step: &Step) -> Result<()> {
        let table = &step.table;
        let place = |image: &Image| Ok::<_, Error>((table.logged.key.clone(), table.row_key(image)?));
        let now = step.now.as_ref().map(|image| Ok::<_, Error>((place(image)?, image))).transpose()?;
        let then = step.then.as_ref().map(|image| Ok::<_, Error>((place(image)?, image))).transpose()?;
        if !table.has_key() {
            if let Some((place, image)) = now {
                match self.made.get_mut(&place).filter(|made| **made > 0) {
                    Some(made) => *made -= 1,
                    None => {
                        let needed = self.needed.entry(place.clone()).or_default();
                        *needed += 1;
                        let (needed, there) = (*needed, count(conn, table, image, false)?);
                        if there < needed {
                            self.conflict(table, image, place, "there is no such row any more".to_owned());
                        }
                    }
                }
            }
            if let Some((place, _)) = then {
                *self.made.entry(place).or_default() += 1;
            }
            return Ok(());
        }
        if let Some((place, image)) = &now {
            let why = match self.states.get(place) {
                Some(Some(state)) if fits(state, image) => None,
                Some(_) => Some("another transaction changed it in between".to_owned()),
                None => differs(conn, table, image, false)?,
            };
            if let Some(why) = why {
                self.conflict(table, image, place.clone(), why);
            }
        }
        let moved = match (&now, &then) {
            (Some((old, _)), Some((new, _))) => old != new,
            (None, Some(_)) => true,
            _ => false,
        };
        if let Some((place, image)) = then.as_ref().filter(|_| moved) {
            let taken = match self.states.get(place) {
                Some(state) => state.is_some(),
                None => count(conn, table, image, false)? > 0,
            };
            if taken {
                let why = "there is a row of this key again".to_owned();
                self.conflict(table, image, place.clone(), why);
            }
        }
        if let Some((place, _)) = now {
            self.states.insert(place, None);
        }
        if let Some((place, image)) = then {
            self.states.insert(place, Some(image.clone()));
        }
        Ok(())
    }

    fn conflict(&mut self, table: &Table, image: &Image, place: Place, why: String) {
        if !self.blocked.insert(place) {
            return;
        }
        self.conflicts_all += 1;
        if self.conflicts.len() < CONFLICTS_MAX {
            let (table, row) = (table.logged.key.to_string(), table.shown(image));
            self.conflicts.push(Conflict { table, row, why });
        }
    }

    /// Is every row as it will be? Rows without a key can't tell.
    fn is_done(&self, conn: &mut Conn, steps: &[Step]) -> Result<bool> {
        let mut asked: HashSet<Place> = HashSet::new();
        // The last step of a row says what it will be.
        for step in steps.iter().rev() {
            if !step.table.has_key() {
                return Ok(false);
            }
            for image in step.now.iter().chain(&step.then) {
                let place = (step.table.logged.key.clone(), step.table.row_key(image)?);
                if asked.contains(&place) {
                    continue;
                }
                let right = match self.states.get(&place) {
                    Some(Some(state)) => differs(conn, &step.table, state, false)?.is_none(),
                    _ => count(conn, &step.table, image, false)? == 0,
                };
                if !right {
                    return Ok(false);
                }
                asked.insert(place);
            }
        }
        Ok(true)
    }

    /// A step that moves a row ties its two keys together: neither is touched where the other is left alone.
    fn spread(&mut self, steps: &[Step]) -> Result<()> {
        loop {
            let before = self.blocked.len();
            for step in steps {
                let places = places(step)?;
                if places.iter().any(|place| self.blocked.contains(place)) {
                    self.blocked.extend(places);
                }
            }
            if self.blocked.len() == before {
                return Ok(());
            }
        }
    }
}

/// Is the row that earlier steps leave the one that this step expects, as far as both are known?
fn fits(state: &Image, expected: &Image) -> bool {
    state.0.iter().zip(&expected.0).all(|(is, wanted)| match (is, wanted) {
        (Some(is), Some(wanted)) => is == wanted,
        _ => true,
    })
}

fn lock_words(lock: bool) -> &'static str {
    if lock { " FOR UPDATE" } else { "" }
}

/// How many rows have this image's key, or, without a key, are this image.
fn count(conn: &mut Conn, table: &Table, image: &Image, lock: bool) -> Result<u64> {
    let (name, row) = (&table.is.name, table.condition(image)?);
    let rows = conn
        .query(format!("SELECT 1 FROM {name} WHERE {row}{}", lock_words(lock)))
        .map_err(|e| said(conn, &e))?;
    Ok(rows.rows.len() as u64)
}

/// How the row of this image's key differs from the image; `None` if it does not.
fn differs(conn: &mut Conn, table: &Table, image: &Image, lock: bool) -> Result<Option<String>> {
    let (mut tests, mut columns) = (Vec::new(), Vec::new());
    for (at, typed) in table.stored() {
        let Some(value) = image.get(at) else { continue };
        tests.push(typed.is_exactly(value.as_deref()).map_err(|what| table.unwritable(at, &what))?);
        columns.push((typed, value));
    }
    let (name, row) = (&table.is.name, table.condition(image)?);
    let found = conn
        .query(format!("SELECT {} FROM {name} WHERE {row}{}", tests.join(", "), lock_words(lock)))
        .map_err(|e| said(conn, &e))?;
    if found.rows.is_empty() {
        return Ok(Some("there is no such row any more".to_owned()));
    }
    let other = columns.iter().enumerate().filter(|(at, _)| found.value(0, *at) != Some(b"1".as_slice()));
    let other: Vec<String> = other
        .map(|(_, (typed, value))| {
            format!("{} is not {} any more", typed.is.name, typed.shown(value.as_deref()))
        })
        .collect();
    Ok((!other.is_empty()).then(|| other.join(", ")))
}

/// Keys of a table that are compared with each other; one statement names them all.
const KEYS_MAX: usize = 500;

/// Refuses keys with texts of which two are the same for the server: what became of the one is not told from what became
/// of the other. More than can be compared are refused where `needed`.
fn equal_keys(conn: &mut Conn, steps: &[Step], needed: bool) -> Result<()> {
    let mut tables: Vec<(&Table, HashMap<RowKey, String>)> = Vec::new();
    for step in steps {
        let table = step.table.as_ref();
        let texts =
            table.is.key.iter().any(|at| table.is.columns.get(*at).is_some_and(|c| c.charset.is_some()));
        if !texts {
            continue;
        }
        let at = match tables.iter().position(|(known, _)| known.logged.key == table.logged.key) {
            Some(at) => at,
            None => {
                tables.push((table, HashMap::new()));
                tables.len() - 1
            }
        };
        let Some((_, keys)) = tables.get_mut(at) else { continue };
        for image in step.now.iter().chain(&step.then) {
            let key = table.row_key(image)?;
            if keys.len() <= KEYS_MAX && !keys.contains_key(&key) {
                keys.insert(key, table.key_select(image)?);
            }
        }
    }
    for (table, keys) in tables {
        let refused = |why: &str| {
            let with = if needed { "without --skip-conflicts once no row is in conflict, or " } else { "" };
            Err(Error::failed(format!(
                "Keys of {} hold texts, and {why}; nothing was changed.",
                table.logged.key
            ))
            .with_next(format!("{with}print the SQL without --apply and judge row by row")))
        };
        if keys.len() > KEYS_MAX {
            if needed {
                return refused(&format!(
                    "more than {KEYS_MAX} rows are too many to compare them by their collation"
                ));
            }
            continue;
        }
        let all: Vec<&str> = keys.values().map(String::as_str).collect();
        let distinct = conn
            .query_text(format!(
                "SELECT COUNT(*) FROM (SELECT DISTINCT * FROM ({}) a) b",
                all.join(" UNION ALL ")
            ))
            .map_err(|e| said(conn, &e))?;
        if distinct.and_then(|count| count.parse().ok()) != Some(keys.len()) {
            return refused(
                "two of these rows have keys that differ in case, accents or spaces alone, and are one for the server",
            );
        }
    }
    Ok(())
}

/// Is every row in the end what the steps made of it? A trigger or a foreign key may have changed it after its own step.
fn all_left(conn: &mut Conn, steps: &[&Step]) -> Result<()> {
    let mut left: HashMap<Place, (&Step, &Image, bool)> = HashMap::new();
    for step in steps.iter().filter(|step| step.table.has_key()) {
        for (image, there) in
            step.now.iter().map(|image| (image, false)).chain(step.then.iter().map(|image| (image, true)))
        {
            let place = (step.table.logged.key.clone(), step.table.row_key(image)?);
            left.insert(place, (step, image, there));
        }
    }
    for (step, image, there) in left.into_values() {
        let table = &step.table;
        let why = match there {
            true => differs(conn, table, image, false)?,
            false => (count(conn, table, image, false)? > 0).then(|| "it is still there".to_owned()),
        };
        if let Some(why) = why {
            return Err(Error::failed(format!(
                "The server made something else of {} {} than it was ({why}); nothing was changed.",
                table.logged.key,
                table.shown(image)
            ))
            .with_next(
                "print the SQL without --apply and look at the triggers and foreign keys of the database",
            ));
        }
    }
    Ok(())
}

/// One row, under its lock: looked at and changed.
fn apply(conn: &mut Conn, step: &Step) -> Result<()> {
    let table = &step.table;
    let changed = |image: &Image, why: &str| {
        Error::failed(format!(
            "{} {} changed while it was undone ({why}); nothing was changed.",
            table.logged.key,
            table.shown(image)
        ))
        .with_next("run the same command again")
    };
    if table.has_key() {
        if let Some(now) = &step.now
            && let Some(why) = differs(conn, table, now, true)?
        {
            return Err(changed(now, &why));
        }
        if let (None, Some(then)) = (&step.now, &step.then)
            && count(conn, table, then, true)? > 0
        {
            return Err(changed(then, "there is a row of this key again"));
        }
    }
    let done = conn.execute(step.sql()?).map_err(|e| {
        let mut error = said(conn, &e);
        error.message.push_str(" Nothing was changed.");
        error
    })?;
    if done.affected != 1
        && let Some(image) = step.now.as_ref().or(step.then.as_ref())
    {
        return Err(changed(image, "it is not there once"));
    }
    Ok(())
}
