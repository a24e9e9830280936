//! From what transactions did to what undoes it: one step a row, the last change first.

use super::definition::Definition;
use super::literal::Typed;
use crate::changes::{Change, Image, LoggedTable};
use crate::error::{Error, Result};
use holdfast_binlog::columns::ColumnType;
use std::sync::Arc;

/// A table that is undone.
#[derive(Debug)]
pub(crate) struct Table {
    /// As the log knew it.
    pub logged: Arc<LoggedTable>,
    /// As the server knows it.
    pub is: Definition,
}

/// What undoes one change of a row.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its table.
    pub table: Arc<Table>,
    /// What the row must be now, as far as the log tells; `None`: there must be no such row.
    pub now: Option<Image>,
    /// What it becomes; `None`: it goes.
    pub then: Option<Image>,
    /// Columns to set, where both are rows.
    pub set: Vec<usize>,
    /// The change may have changed or may change rows of other tables that the log does not tell of, by this foreign key.
    pub cascade: Option<String>,
}

/// What finds a row: the values of its key, or all of them.
pub(crate) type RowKey = Vec<Option<Box<[u8]>>>;

impl Table {
    /// A column with what log and server know of it.
    pub fn typed(&self, at: usize) -> Option<Typed<'_>> {
        self.is.column(&self.logged, at).map(|(column, is)| Typed { column, is })
    }

    /// The columns that hold values of their own.
    pub fn stored(&self) -> impl Iterator<Item = (usize, Typed<'_>)> {
        let columns = (0..self.logged.columns.len()).filter_map(|at| Some((at, self.typed(at)?)));
        columns.filter(|(_, typed)| !typed.is.generated)
    }

    /// Can a row be told from all others?
    pub fn has_key(&self) -> bool {
        !self.is.key.is_empty()
    }

    /// What finds this row. The error names a column that the log does not have.
    pub fn row_key(&self, image: &Image) -> Result<RowKey> {
        let columns: Vec<usize> = match self.has_key() {
            true => self.is.key.clone(),
            false => self.stored().map(|(at, _)| at).collect(),
        };
        let value = |at: usize| image.get(at).cloned().ok_or_else(|| self.lacking(at));
        columns.into_iter().map(value).collect()
    }

    /// The condition that finds this row.
    pub fn condition(&self, image: &Image) -> Result<String> {
        let mut parts = Vec::new();
        for (at, typed) in self.stored() {
            if self.has_key() && !self.is.key.contains(&at) {
                continue;
            }
            let value = image.get(at).ok_or_else(|| self.lacking(at))?.as_deref();
            let part = if self.has_key() { typed.equals(value) } else { typed.is_exactly(value) };
            parts.push(part.map_err(|what| self.unwritable(at, &what))?);
        }
        Ok(parts.join(" AND "))
    }

    /// A SELECT of the values of the row's key, that compares as the server's index does.
    pub fn key_select(&self, image: &Image) -> Result<String> {
        let mut parts = Vec::new();
        for at in &self.is.key {
            let Some(typed) = self.typed(*at) else { continue };
            let value = image.get(*at).ok_or_else(|| self.lacking(*at))?.as_deref();
            let value = typed.literal(value).map_err(|what| self.unwritable(*at, &what))?;
            parts.push(match (&typed.is.charset, &typed.is.collation) {
                (Some(charset), Some(collation)) if typed.is_text() => {
                    format!("CONVERT({value} USING {charset}) COLLATE {collation} AS k{at}")
                }
                _ => format!("{value} AS k{at}"),
            });
        }
        Ok(format!("SELECT {}", parts.join(", ")))
    }

    /// The row's key for a person.
    pub fn shown(&self, image: &Image) -> String {
        let columns = self.stored().filter(|(at, _)| !self.has_key() || self.is.key.contains(at));
        let parts = columns.map(|(at, typed)| match image.get(at) {
            Some(value) => format!("{}={}", typed.is.name, typed.shown(value.as_deref())),
            None => format!("{}=?", typed.is.name),
        });
        parts.collect::<Vec<_>>().join(" ")
    }

    fn column_name(&self, at: usize) -> &str {
        self.is.columns.get(at).map_or("?", |column| &column.name)
    }

    pub fn lacking(&self, at: usize) -> Error {
        Error::failed(format!(
            "The log does not have the value of column {} of {} before the change (binlog_row_image is not FULL on the \
             source, or was not), so it can't be written back.",
            self.column_name(at),
            self.logged.key
        ))
        .with_next("restore to the moment before the transaction, and copy the rows from there")
    }

    pub fn unwritable(&self, at: usize, what: &str) -> Error {
        Error::failed(format!(
            "Column {} of {} has {what}: it can't be written as SQL.",
            self.column_name(at),
            self.logged.key
        ))
        .with_next("restore to the moment before the transaction, and copy the rows from there")
    }
}

impl Step {
    /// What undoes this change; `None` if it changed nothing that can be seen.
    pub fn undoing(table: &Arc<Table>, change: Change) -> Result<Option<Self>> {
        let Change { before, after, partial, cascades_logged, .. } = change;
        let mut set = Vec::new();
        let (now, then) = match (before, after) {
            (None, None) => return Ok(None),
            (None, Some(after)) => (Some(after), None),
            (Some(before), None) => {
                if let Some((at, _)) = table.stored().find(|(at, _)| before.get(*at).is_none()) {
                    return Err(table.lacking(at));
                }
                (None, Some(before))
            }
            (Some(before), Some(after)) => {
                let mut now = before.overlaid(&after);
                for (at, typed) in table.stored() {
                    let Some(new) = after.get(at) else { continue };
                    let differences = partial && matches!(typed.column.kind, ColumnType::Json { .. });
                    let old = before.get(at);
                    if old == Some(new) && !differences && !typed.is.on_update {
                        continue;
                    }
                    if old.is_none() {
                        return Err(table.lacking(at));
                    }
                    set.push(at);
                    if differences && let Some(slot) = now.0.get_mut(at) {
                        *slot = None;
                    }
                }
                if set.iter().all(|at| now.get(*at) == before.get(*at)) {
                    return Ok(None);
                }
                let then = now.overlaid(&before);
                (Some(now), Some(then))
            }
        };
        // A key of each image must be there.
        now.iter().chain(&then).try_for_each(|image| table.row_key(image).map(drop))?;
        let both = now.is_some() && then.is_some();
        let touched = |at: &usize| !both || set.contains(at);
        let cascade = table.is.referred.iter().find(|(at, _)| touched(at)).map(|(_, name)| name.clone());
        // Where the log tells of them, only what would go by a DELETE of ours is not known.
        let cascade = cascade.filter(|_| !cascades_logged || then.is_none());
        Ok(Some(Self { table: Arc::clone(table), now, then, set, cascade }))
    }

    /// The statement.
    pub fn sql(&self) -> Result<String> {
        let table = &self.table;
        let value = |image: &Image, at: usize, typed: &Typed<'_>| {
            let bytes = image.get(at).ok_or_else(|| table.lacking(at))?.as_deref();
            typed.written(bytes).map_err(|what| table.unwritable(at, &what))
        };
        let limit = if table.has_key() { "" } else { " LIMIT 1" };
        match (&self.now, &self.then) {
            (Some(now), Some(then)) => {
                let mut parts = Vec::new();
                for at in &self.set {
                    let Some(typed) = table.typed(*at) else { continue };
                    parts.push(format!("{} = {}", typed.name(), value(then, *at, &typed)?));
                }
                let (name, row) = (&table.is.name, table.condition(now)?);
                Ok(format!("UPDATE {name} SET {} WHERE {row}{limit}", parts.join(", ")))
            }
            (Some(now), None) => {
                Ok(format!("DELETE FROM {} WHERE {}{limit}", table.is.name, table.condition(now)?))
            }
            (None, Some(then)) => {
                let (mut names, mut values) = (Vec::new(), Vec::new());
                for (at, typed) in table.stored() {
                    names.push(typed.name());
                    values.push(value(then, at, &typed)?);
                }
                Ok(format!(
                    "INSERT INTO {} ({}) VALUES ({})",
                    table.is.name,
                    names.join(", "),
                    values.join(", ")
                ))
            }
            (None, None) => Ok("DO 0".to_owned()),
        }
    }
}
