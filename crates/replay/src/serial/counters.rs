//! The AUTO_INCREMENT counters at the start of a group with statements.
//!
//! The log gives a statement its first number only: further ones, which triggers and routines take,
//! come from the counters. A kill rolls the rows of a group back, but no counter, so those are
//! noted before it, and set back before it is done again.

use holdfast_mysql::Conn;

use super::lead::Lead;
use crate::checkpoint::{self, Intent};
use crate::error::Error;
use crate::sql;

/// What a note of counters begins with; no definition of a table does.
const MARK: &str = "counters\n";

/// The counters as the statements that set them, a line each.
fn read(conn: &mut Conn) -> Result<Vec<u8>, Error> {
    let doing = || Error::server("reading AUTO_INCREMENT counters");
    if !conn.server().is_mariadb() {
        // Otherwise the answer is from statistics of yesterday.
        conn.execute("SET SESSION information_schema_stats_expiry = 0").map_err(doing())?;
    }
    let found = conn
        .query(
            "SELECT CONVERT(table_schema USING utf8mb4), CONVERT(table_name USING utf8mb4), auto_increment FROM \
             information_schema.tables WHERE auto_increment IS NOT NULL AND table_schema NOT IN \
             ('mysql', 'information_schema', 'performance_schema', 'sys') ORDER BY 1, 2",
        )
        .map_err(doing())?;
    let mut out = MARK.as_bytes().to_vec();
    for row in 0..found.rows.len() {
        let text = |column| found.text(row, column).unwrap_or_default();
        let table = sql::table(&text(0), &text(1)).replace('\n', " ");
        out.extend_from_slice(format!("ALTER TABLE {table} AUTO_INCREMENT = {}\n", text(2)).as_bytes());
    }
    Ok(out)
}

impl Lead<'_> {
    /// Notes the counters, if a statement may take numbers that the log does not give.
    pub(super) fn note_counters(&mut self) -> Result<(), Error> {
        let current = self.current_ref();
        let inside = current.rows || current.alone || current.xa.is_some();
        if inside || self.counted || !self.kinds.any_triggers(self.conn)? {
            return Ok(());
        }
        self.commit_group()?;
        self.session.in_utf8(self.conn)?;
        let before = read(self.conn)?;
        checkpoint::intend(self.conn, &Intent { number: self.seen, before })?;
        self.counted = true;
        Ok(())
    }

    /// Sets counters back to where they were before a group that a kill undid.
    pub(super) fn set_counters_back(&mut self) -> Result<(), Error> {
        let noted = |intent: &mut Intent| intent.before.starts_with(MARK.as_bytes());
        let Some(intent) = self.checkpoint.intent.take_if(noted) else { return Ok(()) };
        self.session.in_utf8(self.conn)?;
        let now = read(self.conn)?;
        let now: Vec<&[u8]> = now.split(|byte| *byte == b'\n').collect();
        let noted = intent.before.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
        for line in noted.filter(|line| !now.contains(line)) {
            self.conn.execute(line).map_err(Error::server("setting an AUTO_INCREMENT counter back"))?;
        }
        Ok(())
    }
}
