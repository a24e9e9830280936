//! What a table looks like on a server now, and whether the log's rows still fit it.
//!
//! The log has names with `binlog_row_metadata=FULL` only, and never says which columns are computed. So the server is
//! asked, and what both know is compared.

use crate::changes::LoggedTable;
use crate::error::{Error, Result};
use holdfast_binlog::columns::{Column, ColumnType};
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;
use holdfast_restore::catalog::quoted_table;

/// A column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// Its type in one word, lower case.
    pub data_type: String,
    /// A number without a sign.
    pub unsigned: bool,
    /// Character set of a text; none for everything else.
    pub charset: Option<String>,
    /// Its collation.
    pub collation: Option<String>,
    /// Its values are computed.
    pub generated: bool,
    /// `ON UPDATE CURRENT_TIMESTAMP`: it changes by itself.
    pub on_update: bool,
}

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    /// Its name between backticks.
    pub name: String,
    /// Columns in order.
    pub columns: Vec<ColumnDefinition>,
    /// Positions of the columns of a key that finds one row at most and has no NULL; empty without one.
    pub key: Vec<usize>,
    /// Its engine can roll back.
    pub transactional: bool,
    /// Names of its triggers.
    pub triggers: Vec<String>,
    /// Columns that foreign keys refer to which change other rows when rows here go or change, with the key's name.
    pub referred: Vec<(usize, String)>,
}

/// A text as a literal.
pub(crate) fn quoted(text: &str) -> String {
    // The sessions that run this have NO_BACKSLASH_ESCAPES off or on; hexadecimal digits mean the same in both.
    match text.contains('\\') {
        true => {
            format!("_utf8mb4 x'{}'", text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

impl Definition {
    /// Reads a table; `None` if there is none of this name.
    pub fn read(conn: &mut Conn, key: &TableKey) -> holdfast_mysql::Result<Option<Self>> {
        let (database, table) = (quoted(&key.database), quoted(&key.table));
        let of = format!("TABLE_SCHEMA = {database} AND TABLE_NAME = {table}");
        let rows = conn.query(format!(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, GENERATION_EXPRESSION, EXTRA, IS_NULLABLE, \
             COLLATION_NAME \
             FROM information_schema.COLUMNS WHERE {of} ORDER BY ORDINAL_POSITION"
        ))?;
        if rows.rows.is_empty() {
            return Ok(None);
        }
        let text = |row, column| rows.text(row, column).unwrap_or_default();
        let columns: Vec<ColumnDefinition> = (0..rows.rows.len())
            .map(|row| ColumnDefinition {
                name: text(row, 0),
                data_type: text(row, 1).to_ascii_lowercase(),
                unsigned: text(row, 2).contains("unsigned"),
                charset: rows.text(row, 3),
                collation: rows.text(row, 7),
                generated: !text(row, 4).is_empty(),
                on_update: text(row, 5).to_ascii_lowercase().contains("on update"),
            })
            .collect();
        let not_null: Vec<bool> = (0..rows.rows.len()).map(|row| text(row, 6) == "NO").collect();
        let transactional = conn
            .query_text(format!(
                "SELECT e.TRANSACTIONS FROM information_schema.TABLES t JOIN information_schema.ENGINES e \
                 ON e.ENGINE = t.ENGINE WHERE t.TABLE_TYPE = 'BASE TABLE' \
                 AND t.TABLE_SCHEMA = {database} AND t.TABLE_NAME = {table}"
            ))?
            .is_some_and(|word| word == "YES");
        let list = |conn: &mut Conn, sql: String| -> holdfast_mysql::Result<Vec<String>> {
            let rows = conn.query(sql)?;
            Ok((0..rows.rows.len()).filter_map(|row| rows.text(row, 0)).collect())
        };
        let triggers = list(
            conn,
            format!(
                "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS \
                 WHERE EVENT_OBJECT_SCHEMA = {database} AND EVENT_OBJECT_TABLE = {table} ORDER BY TRIGGER_NAME"
            ),
        )?;
        let foreign = conn.query(format!(
            "SELECT k.REFERENCED_COLUMN_NAME, CONCAT(r.CONSTRAINT_SCHEMA, '.', r.TABLE_NAME, ' (', r.CONSTRAINT_NAME, ')') \
             FROM information_schema.REFERENTIAL_CONSTRAINTS r JOIN information_schema.KEY_COLUMN_USAGE k \
             ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME \
             AND k.TABLE_NAME = r.TABLE_NAME \
             WHERE k.REFERENCED_TABLE_SCHEMA = {database} AND k.REFERENCED_TABLE_NAME = {table} \
             AND (r.DELETE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT') \
             OR r.UPDATE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT')) ORDER BY 2, 1"
        ))?;
        let referred = (0..foreign.rows.len()).filter_map(|row| {
            let name = foreign.text(row, 0)?;
            let place = columns.iter().position(|column| column.name.eq_ignore_ascii_case(&name))?;
            Some((place, foreign.text(row, 1)?))
        });
        let referred = referred.collect();
        Ok(Some(Self {
            name: quoted_table(key),
            key: unique_key(conn, &of, &columns, &not_null)?,
            columns,
            transactional,
            triggers,
            referred,
        }))
    }

    /// Refuses a table that is no longer as it was when the log was written.
    pub fn fits(&self, logged: &LoggedTable) -> Result<()> {
        let refused = |why: String| {
            Err(Error::failed(format!(
                "{} is not what it was when the transaction ran: {why}. Its rows can't be written back.",
                logged.key
            ))
            .with_next("restore to the moment before the transaction, and copy the rows from there"))
        };
        if self.columns.len() != logged.columns.len() {
            return refused(format!(
                "the log has {} columns, the server {}",
                logged.columns.len(),
                self.columns.len()
            ));
        }
        if let Some(names) = &logged.names
            && let Some((was, is)) = names.iter().zip(&self.columns).find(|(was, is)| **was != is.name)
        {
            return refused(format!("column {was} is now {}", is.name));
        }
        for (column, is) in logged.columns.iter().zip(&self.columns) {
            if !is_of(column.kind, &is.data_type) {
                return refused(format!(
                    "column {} is of type {}, in the log it is not",
                    is.name, is.data_type
                ));
            }
            if column.unsigned.is_some_and(|unsigned| {
                unsigned != is.unsigned
                    && matches!(
                        column.kind,
                        ColumnType::Tiny
                            | ColumnType::Short
                            | ColumnType::Int24
                            | ColumnType::Long
                            | ColumnType::LongLong
                    )
            }) {
                return refused(format!("the sign of column {} has changed", is.name));
            }
        }
        Ok(())
    }

    /// The column with what the server knows of it.
    pub fn column(&self, logged: &LoggedTable, at: usize) -> Option<(Column, &ColumnDefinition)> {
        let (mut column, is) = (*logged.columns.get(at)?, self.columns.get(at)?);
        column.unsigned = Some(is.unsigned);
        Some((column, is))
    }
}

/// The primary key, or else the first unique key without NULL; whole columns only.
fn unique_key(
    conn: &mut Conn,
    of: &str,
    columns: &[ColumnDefinition],
    not_null: &[bool],
) -> holdfast_mysql::Result<Vec<usize>> {
    let rows = conn.query(format!(
        "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
         WHERE {of} AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"
    ))?;
    let mut best: Option<Vec<usize>> = None;
    let mut at = 0;
    while at < rows.rows.len() {
        let index = rows.text(at, 0);
        let mut key = Some(Vec::new());
        while at < rows.rows.len() && rows.text(at, 0) == index {
            let name = rows.text(at, 1);
            let place = columns.iter().position(|column| Some(&column.name) == name.as_ref());
            let fit = place.filter(|place| {
                let computed = columns.get(*place).is_none_or(|column| column.generated);
                not_null.get(*place) == Some(&true) && rows.value(at, 2).is_none() && !computed
            });
            key = key.zip(fit).map(|(mut key, place): (Vec<usize>, usize)| {
                key.push(place);
                key
            });
            at += 1;
        }
        if best.is_none() {
            best = key;
        }
    }
    Ok(best.unwrap_or_default())
}

/// May a column that the log has as `kind` be of this type?
fn is_of(kind: ColumnType, data_type: &str) -> bool {
    use ColumnType as T;
    let allowed: &[&str] = match kind {
        T::Tiny => &["tinyint"],
        T::Short => &["smallint"],
        T::Int24 => &["mediumint"],
        T::Long => &["int"],
        T::LongLong => &["bigint"],
        T::Float => &["float"],
        T::Double => &["double"],
        T::Decimal { .. } => &["decimal"],
        T::Year => &["year"],
        T::Date => &["date"],
        T::Time { .. } => &["time"],
        T::DateTime { .. } => &["datetime"],
        T::Timestamp { .. } => &["timestamp"],
        T::Bit { .. } => &["bit"],
        T::Enum { .. } => &["enum"],
        T::Set { .. } => &["set"],
        // MariaDB's UUID, INET4 and INET6 look the same in the log, and have other bytes there than in SQL.
        T::Char { .. } => &["char", "binary"],
        T::VarChar { .. } => &["varchar", "varbinary"],
        T::Blob { .. } => {
            &["tinyblob", "blob", "mediumblob", "longblob", "tinytext", "text", "mediumtext", "longtext"]
        }
        T::Json { .. } => &["json"],
        T::Vector { .. } => &["vector"],
        T::Geometry { .. } => {
            return ["geo", "point", "line", "poly", "multi"]
                .iter()
                .any(|front| data_type.starts_with(front));
        }
        _ => &[],
    };
    allowed.contains(&data_type)
}
