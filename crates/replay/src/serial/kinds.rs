//! What must be known of tables before their rows are applied one by one.

use foldhash::HashMap;
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;

use crate::error::Error;
use crate::sql;

#[derive(Debug, Clone, Copy)]
struct Kind {
    transactional: bool,
    /// Rows are found by scanning, in an order that unique keys may not bear.
    apart: bool,
}

/// Facts of tables, asked for once.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    tables: HashMap<TableKey, Kind>,
    /// Are there tables without transactions at all?
    others: Option<bool>,
    /// Are there triggers or routines, which may take numbers of counters?
    triggers: Option<bool>,
}

impl Kinds {
    /// A definition ran.
    pub(super) fn forget(&mut self) {
        self.tables.clear();
        self.others = None;
        self.triggers = None;
    }

    /// May a statement do more than its text says?
    pub(super) fn any_triggers(&mut self, conn: &mut Conn) -> Result<bool, Error> {
        if let Some(known) = self.triggers {
            return Ok(known);
        }
        let found = conn
            .query_text(
                "SELECT (SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema <> 'sys') + \
                 (SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema NOT IN ('sys', 'mysql'))",
            )
            .map_err(Error::server("looking for triggers and routines"))?;
        let any = found.as_deref() != Some("0");
        self.triggers = Some(any);
        Ok(any)
    }

    /// Must each row of an update be given by itself? Asks nothing.
    pub(super) fn apart(&self, key: &TableKey) -> bool {
        self.tables.get(key).is_some_and(|kind| kind.apart)
    }

    /// Has the table's engine transactions?
    pub(super) fn of(&mut self, conn: &mut Conn, key: &TableKey) -> Result<bool, Error> {
        if let Some(known) = self.tables.get(key) {
            return Ok(known.transactional);
        }
        let (schema, table) = (sql::hex(key.database.as_bytes()), sql::hex(key.table.as_bytes()));
        let named = |alias: &str| {
            format!(
                "{alias}.table_schema = CONVERT({schema} USING utf8mb4) AND {alias}.table_name = CONVERT({table} USING utf8mb4)"
            )
        };
        let found = conn
            .query(format!(
                "SELECT COALESCE(MAX(e.transactions), 'YES'), \
                 (SELECT COUNT(*) FROM information_schema.statistics s WHERE {} AND s.index_name = 'PRIMARY'), \
                 (SELECT COUNT(*) FROM information_schema.statistics s WHERE {} AND s.non_unique = 0) \
                 FROM information_schema.tables t JOIN information_schema.engines e ON e.engine = t.engine WHERE {}",
                named("s"),
                named("s"),
                named("t")
            ))
            .map_err(Error::server("asking for the engine and keys of a table"))?;
        let none = |column| found.text(0, column).is_none_or(|count| count == "0");
        let transactional = found.text(0, 0).as_deref() != Some("NO");
        let kind = Kind { transactional, apart: none(1) && !none(2) };
        self.tables.insert(key.clone(), kind);
        Ok(transactional)
    }

    /// May a statement reach a table without transactions? Its text and the triggers behind it
    /// are not read: it may, if there is one.
    pub(super) fn any_without_transactions(
        &mut self,
        conn: &mut Conn,
        database: &[u8],
        text: &[u8],
    ) -> Result<bool, Error> {
        // MariaDB's own tables are such, but nobody else's statements reach them.
        let own = b"mysql";
        if database.eq_ignore_ascii_case(own)
            || text.windows(own.len()).any(|word| word.eq_ignore_ascii_case(own))
        {
            return Ok(true);
        }
        if let Some(known) = self.others {
            return Ok(known);
        }
        let found = conn
            .query_text(
                "SELECT COUNT(*) FROM information_schema.tables t JOIN information_schema.engines e ON e.engine = t.engine \
                 WHERE COALESCE(e.transactions, 'NO') <> 'YES' AND t.table_schema NOT IN \
                 ('mysql', 'information_schema', 'performance_schema', 'sys')",
            )
            .map_err(Error::server("looking for tables without transactions"))?;
        let any = found.as_deref() != Some("0");
        self.others = Some(any);
        Ok(any)
    }
}
