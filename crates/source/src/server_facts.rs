//! What a restore will ask about a server, asked while the server is still there.

use holdfast_mysql::Conn;

use crate::error::Error;
use crate::outcome::{Facts, NotCarried, Warning};

/// Variables kept with a copy: what a server must be given to start on it as it ran before, and what a person asks
/// when it has become a riddle. A server that does not know one is not asked for it.
const VARIABLES: &[&str] = &[
    "aria_block_size",
    "aria_log_dir_path",
    "authentication_policy",
    "binlog_checksum",
    "binlog_format",
    "binlog_order_commits",
    "binlog_row_image",
    "binlog_row_metadata",
    "character_set_filesystem",
    "character_set_server",
    "collation_server",
    "datadir",
    "default_authentication_plugin",
    "default_storage_engine",
    "encrypt_binlog",
    "enforce_gtid_consistency",
    "event_scheduler",
    "explicit_defaults_for_timestamp",
    "gtid_domain_id",
    "gtid_mode",
    "gtid_strict_mode",
    "hostname",
    "innodb_checksum_algorithm",
    "innodb_data_file_path",
    "innodb_data_home_dir",
    "innodb_directories",
    "innodb_log_file_size",
    "innodb_log_files_in_group",
    "innodb_log_group_home_dir",
    "innodb_page_size",
    "innodb_redo_log_capacity",
    "innodb_redo_log_encrypt",
    "innodb_undo_directory",
    "innodb_undo_log_encrypt",
    "innodb_undo_tablespaces",
    "innodb_version",
    "log_bin",
    "log_bin_basename",
    "lower_case_table_names",
    "port",
    "server_id",
    "server_uid",
    "server_uuid",
    "sql_mode",
    "sync_binlog",
    "system_time_zone",
    "time_zone",
    "version",
    "version_comment",
    "version_compile_machine",
    "version_compile_os",
];

/// Longest list of accounts or plugins kept, in bytes.
const LIST_BYTES_MAX: usize = 64 * 1024;

/// Tables named one by one; of the rest the number is told.
const TABLES_NAMED_MAX: usize = 10_000;

/// Parts of names of settings whose values are nobody's business.
const SECRET: [&str; 8] =
    ["passw", "passphrase", "pwd", "secret", "token", "filekey", "_auth", "wsrep_provider_options"];

/// Settings with such a part in their names that say how passwords are to be, and hold none.
const NO_SECRET: [&str; 3] = ["validate_password", "default_password_lifetime", "password_"];

/// What was set by somebody, a line `name=value` each: everything that is not as the server was built. None where the
/// account may not ask.
fn changed_settings(conn: &mut Conn) -> Result<Option<(String, String)>, Error> {
    let asked = if conn.server().is_mariadb() {
        "SELECT VARIABLE_NAME, GLOBAL_VALUE FROM information_schema.SYSTEM_VARIABLES \
         WHERE GLOBAL_VALUE_ORIGIN NOT IN ('COMPILE-TIME', 'AUTO') AND GLOBAL_VALUE IS NOT NULL ORDER BY 1"
    } else {
        "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.variables_info \
         JOIN performance_schema.global_variables USING (VARIABLE_NAME) WHERE VARIABLE_SOURCE <> 'COMPILED' ORDER BY 1"
    };
    let rows = match conn.query(asked) {
        Ok(rows) => rows,
        // A server that has no such tables, or an account that may not read them: a copy is one all the same.
        Err(error) if error.code().is_some() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut lines = String::new();
    for row in 0..rows.rows.len() {
        let (Some(name), Some(value)) = (rows.text(row, 0), rows.text(row, 1)) else { continue };
        let name = name.to_ascii_lowercase();
        let kept = !value.contains(['\n', '\r'])
            && (!SECRET.iter().any(|part| name.contains(part))
                || NO_SECRET.iter().any(|begin| name.starts_with(begin)));
        if kept && lines.len() + name.len() + value.len() + 2 <= LIST_BYTES_MAX {
            lines.push_str(&format!("{name}={value}\n"));
        }
    }
    Ok(Some(("settings".to_owned(), lines)))
}

/// The server's variables by their own names, what of its settings somebody set, and its loadable plugins.
pub fn variables(conn: &mut Conn) -> Result<Facts, Error> {
    let names: Vec<String> = VARIABLES.iter().map(|name| format!("'{name}'")).collect();
    let names = names.join(",");
    let rows = conn.query(format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})"))?;
    let mut facts = Vec::new();
    for row in 0..rows.rows.len() {
        if let (Some(name), Some(value)) = (rows.text(row, 0), rows.text(row, 1)) {
            facts.push((name.to_ascii_lowercase(), value));
        }
    }
    let plugins = conn.query(
        "SELECT PLUGIN_NAME, PLUGIN_LIBRARY FROM information_schema.PLUGINS \
         WHERE PLUGIN_STATUS = 'ACTIVE' AND PLUGIN_LIBRARY IS NOT NULL ORDER BY 1",
    )?;
    let plugins = (0..plugins.rows.len())
        .filter_map(|row| Some(format!("{}={}", plugins.text(row, 0)?, plugins.text(row, 1)?)));
    facts.push(("plugins".to_owned(), join(plugins)));
    facts.extend(changed_settings(conn)?);
    Ok(facts)
}

/// The accounts' names, or a note that they may not be read.
pub(crate) fn accounts(conn: &mut Conn) -> Result<(Facts, Option<Warning>), Error> {
    match conn.query("SELECT User, Host FROM mysql.user ORDER BY 1, 2") {
        Ok(rows) => {
            let names = (0..rows.rows.len())
                .filter_map(|row| Some(format!("'{}'@'{}'", rows.text(row, 0)?, rows.text(row, 1)?)));
            let count = rows.rows.len().to_string();
            Ok((vec![("account_count".to_owned(), count), ("accounts".to_owned(), join(names))], None))
        }
        // 1142: SELECT denied; 1044: no access to the schema. The accounts are in the copy all the same.
        Err(error) if matches!(error.code(), Some(1142 | 1044)) => {
            let text = "the list of accounts is not kept beside the copy, because the backup account may not read \
                        it: GRANT SELECT ON mysql.user TO it";
            Ok((Vec::new(), Some(Warning::Note(text.to_owned()))))
        }
        Err(error) => Err(error.into()),
    }
}

fn join(names: impl Iterator<Item = String>) -> String {
    let mut out = String::new();
    for name in names {
        if out.len() + name.len() + 2 > LIST_BYTES_MAX {
            out.push_str(", ..");
            break;
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(&name);
    }
    out
}

/// Which of `needed` the account lacks on `*.*`. Names as `SHOW GRANTS` writes them.
pub(crate) fn missing_privileges(conn: &mut Conn, needed: &[&str]) -> Result<Vec<String>, Error> {
    let rows = conn.query("SHOW GRANTS")?;
    let grants: Vec<String> = (0..rows.rows.len()).filter_map(|row| rows.text(row, 0)).collect();
    Ok(lacking(&grants, needed))
}

fn lacking(grants: &[String], needed: &[&str]) -> Vec<String> {
    let mut have: Vec<String> = Vec::new();
    for grant in grants {
        let Some((privileges, rest)) = grant.strip_prefix("GRANT ").and_then(|g| g.split_once(" ON ")) else {
            continue;
        };
        if rest.starts_with("*.* ") {
            have.extend(privileges.split(',').map(|p| p.trim().to_ascii_uppercase()));
        }
    }
    // MariaDB says ALL PRIVILEGES; MySQL spells all of them out.
    if have.iter().any(|p| p == "ALL PRIVILEGES" || p == "ALL") {
        return Vec::new();
    }
    needed.iter().filter(|n| !have.iter().any(|h| h == *n)).map(|n| (*n).to_owned()).collect()
}

/// Base tables of engines other than `carried`, system schemas aside.
pub(crate) fn tables_not_in(
    conn: &mut Conn,
    carried: &[&str],
    reason: &str,
) -> Result<(Vec<NotCarried>, Option<Warning>), Error> {
    let engines: Vec<String> = carried.iter().map(|engine| format!("'{engine}'")).collect();
    let rows = conn.query(format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES \
         WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE NOT IN ({}) \
         AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema') ORDER BY 1, 2",
        engines.join(",")
    ))?;
    let name = |row| {
        let table = format!("{}.{}", rows.text(row, 0)?, rows.text(row, 1)?);
        Some(NotCarried { table, engine: rows.text(row, 2)?, reason: reason.to_owned() })
    };
    let tables: Vec<_> = (0..rows.rows.len().min(TABLES_NAMED_MAX)).filter_map(name).collect();
    let more = rows.rows.len().saturating_sub(TABLES_NAMED_MAX);
    let warning = (more > 0).then(|| Warning::Note(format!("{more} more tables are not carried: {reason}")));
    Ok((tables, warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_read_from_grants_on_everything_only() {
        let grants: Vec<String> = [
            "GRANT RELOAD, PROCESS ON *.* TO `bk`@`%`",
            "GRANT BACKUP_ADMIN ON *.* TO `bk`@`%`",
            "GRANT LOCK TABLES ON `shop`.* TO `bk`@`%`",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(lacking(&grants, &["PROCESS", "LOCK TABLES", "BACKUP_ADMIN"]), ["LOCK TABLES"]);
        let all = ["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION".to_owned()];
        assert!(lacking(&all, &["PROCESS", "LOCK TABLES"]).is_empty());
    }

    #[test]
    fn a_list_that_is_too_long_says_so() {
        let list = join((0..100_000).map(|i| i.to_string()));
        assert!(list.len() <= LIST_BYTES_MAX + 4 && list.ends_with(", .."));
    }
}
