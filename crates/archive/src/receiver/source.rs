//! The source's side of a session: who is there, and which files it has.

use holdfast_format::gtid::{Flavor, Uuid};
use holdfast_mysql::Conn;

use crate::error::{Error, Result};

/// Who is there, and is it the right one?
pub(super) fn check_identity(conn: &mut Conn, expect: Option<Uuid>) -> Result<Flavor> {
    if conn.server().is_mariadb() {
        return Ok(Flavor::MariaDb);
    }
    let Some(expect) = expect else { return Ok(Flavor::MySql) };
    let got = conn.query_text("SELECT @@server_uuid")?.unwrap_or_default();
    if got.parse::<Uuid>().ok() != Some(expect) {
        return Err(Error::Identity {
            endpoint: conn.endpoint().to_owned(),
            expected: format!("the server {expect}"),
            got: format!("the server {got}"),
        });
    }
    Ok(Flavor::MySql)
}

/// The files of the source's log, oldest first.
pub(crate) fn binlog_files(conn: &mut Conn) -> Result<Vec<String>> {
    // Error 1381: the server writes no binlog.
    match conn.query("SHOW BINARY LOGS") {
        Ok(result) => Ok((0..result.rows.len()).filter_map(|row| result.text(row, 0)).collect()),
        Err(error) if error.code() == Some(1381) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
