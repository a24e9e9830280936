//! The last step: GTID state, and every trace of the replay removed.

use holdfast_format::gtid::{GtidSet, MariaDbBinlogState};
use holdfast_mysql::Conn;

use crate::checkpoint;
use crate::error::Error;

/// Sets the server's GTID state to what base and log together hold, and drops the schema of
/// the checkpoint. May be called again.
///
/// # Errors
/// Fails when the server does.
pub fn finish(conn: &mut Conn, gtids: &GtidSet, state: &MariaDbBinlogState) -> Result<(), Error> {
    conn.execute("SET SESSION sql_log_bin=0").map_err(Error::server("preparing the session"))?;
    match gtids {
        GtidSet::MySql(set) => {
            let reset = if conn.server().numbers() >= (8, 2, 0) {
                "RESET BINARY LOGS AND GTIDS"
            } else {
                "RESET MASTER"
            };
            let doing = || Error::server("setting gtid_purged");
            conn.execute(reset).map_err(doing())?;
            if !set.is_empty() {
                conn.execute(format!("SET GLOBAL gtid_purged='{set}'")).map_err(doing())?;
            }
        }
        GtidSet::MariaDb(pos) => {
            let doing = || Error::server("setting the GTID position");
            conn.execute(format!("SET GLOBAL gtid_slave_pos='{pos}'")).map_err(doing())?;
            // Without a binary log there is no state to set; the first start with one takes
            // its position from gtid_slave_pos.
            let on = conn.query_text("SELECT @@GLOBAL.log_bin").map_err(doing())?;
            if on.as_deref() == Some("1") && !state.is_empty() {
                conn.execute("RESET MASTER").map_err(doing())?;
                conn.execute(format!("SET GLOBAL gtid_binlog_state='{state}'")).map_err(doing())?;
            }
        }
    }
    checkpoint::remove(conn)
}
