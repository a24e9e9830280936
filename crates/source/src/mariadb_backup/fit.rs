//! What `mariadb-backup` copies without a word although no server could be started on it, asked before it begins.

use holdfast_mysql::Conn;

use crate::error::Error;

/// Tablespaces named in a refusal.
const NAMED: usize = 3;

/// A reason not to copy, and what helps.
pub(super) type Unfit = (String, String);

/// Looks for files outside of the datadir and for encryption at rest. Needs PROCESS, as the copy itself does.
pub(super) fn unfit(conn: &mut Conn) -> Result<Option<Unfit>, Error> {
    let path = conn.query_text("SELECT @@GLOBAL.innodb_data_file_path")?.unwrap_or_default();
    if path.contains('/') {
        let problem = format!("its system tablespace lies outside of the datadir ({path})");
        let remedy = "Stop the server, move the files into its datadir and name them without a folder in \
                      innodb_data_file_path";
        return Ok(Some((problem, remedy.to_owned())));
    }
    if let Some(found) = outside(conn)? {
        return Ok(Some(found));
    }
    encrypted(conn)
}

/// A copy holds such a table's file in the datadir and a link to where the source has it, and a server that finds both
/// opens neither; without the link MariaDB 10.11 dies at the first ALTER TABLE that rebuilds the table.
fn outside(conn: &mut Conn) -> Result<Option<Unfit>, Error> {
    let files = conn.query(
        "SELECT FILENAME FROM information_schema.INNODB_SYS_TABLESPACES \
         WHERE SPACE <> 0 AND FILENAME LIKE '/%' AND NAME NOT LIKE 'innodb\\_undo%' ORDER BY NAME",
    )?;
    Ok(names(&files).map(|names| {
        let remedy = "Make the table anew without DATA DIRECTORY, copy its rows and rename it".to_owned();
        (format!("tables of it lie outside of the datadir: {names}"), remedy)
    }))
}

/// The restored server would have no keys.
fn encrypted(conn: &mut Conn) -> Result<Option<Unfit>, Error> {
    let spaces = conn.query(
        "SELECT NAME FROM information_schema.INNODB_TABLESPACES_ENCRYPTION \
         WHERE ENCRYPTION_SCHEME <> 0 AND (MIN_KEY_VERSION <> 0 OR CURRENT_KEY_VERSION <> 0) ORDER BY NAME",
    )?;
    if let Some(names) = names(&spaces) {
        let remedy = "Run ALTER TABLE .. ENCRYPTED=NO for each, with innodb_encrypt_tables = OFF".to_owned();
        return Ok(Some((
            format!("tables are encrypted at rest, which can't be copied yet: {names}"),
            remedy,
        )));
    }
    for name in ["innodb_encrypt_log", "aria_encrypt_tables"] {
        let value = conn.query(format!("SHOW GLOBAL VARIABLES LIKE '{name}'"))?.text(0, 1);
        if value.as_deref() == Some("ON") {
            let problem = format!("{name} is on, and encryption at rest can't be copied yet");
            return Ok(Some((problem, format!("Set {name} = OFF in its configuration and restart it"))));
        }
    }
    Ok(None)
}

/// The first of some names and how many more there are; nothing for none.
fn names(rows: &holdfast_mysql::ResultSet) -> Option<String> {
    let all: Vec<String> = (0..rows.rows.len()).filter_map(|row| rows.text(row, 0)).collect();
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let first = all.get(..NAMED.min(all.len())).unwrap_or_default();
    (!all.is_empty()).then(|| format!("{}{more}", first.join(", ")))
}
