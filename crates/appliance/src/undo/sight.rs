//! What the account may see: a server hides triggers and foreign keys from those who lack the privilege, and says nothing.

use super::definition::quoted;
use holdfast_archive::find::like;
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;

/// Privileges with which all tables, and their foreign keys, are seen.
const TABLES: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

/// Does a line of SHOW GRANTS give one of the privileges, and where? `None`: it does not.
fn given<'l>(line: &'l str, words: &[&str]) -> Option<(bool, &'l str)> {
    let (gives, rest) = match line.split_once(' ')? {
        ("GRANT", rest) => (true, rest),
        ("REVOKE", rest) => (false, rest),
        _ => return None,
    };
    let (privileges, rest) = rest.split_once(" ON ")?;
    let has = privileges.split(", ").any(|word| words.contains(&word) || word.starts_with("ALL"));
    let (place, _) = rest.split_once(if gives { " TO " } else { " FROM " })?;
    has.then_some((gives, place))
}

/// Do these lines of SHOW GRANTS give one of the privileges on the table?
fn on_table(grants: &[String], words: &[&str], key: &TableKey) -> bool {
    let name = |text: &str| text.replace('`', "``");
    let exact = format!("`{}`.`{}`", name(&key.database), name(&key.table));
    let of = |place: &str| {
        let database = place.strip_prefix('`').and_then(|rest| rest.strip_suffix("`.*"));
        place == "*.*"
            || place == exact
            || database
                .is_some_and(|pattern| like(key.database.as_bytes(), pattern.replace("``", "`").as_bytes()))
    };
    let mut found = false;
    for (gives, place) in grants.iter().filter_map(|line| given(line, words)) {
        if of(place) {
            if !gives {
                return false;
            }
            found = true;
        }
    }
    found
}

/// Do these lines give one of the privileges everywhere?
fn everywhere(grants: &[String], words: &[&str]) -> bool {
    let mut told = grants.iter().filter_map(|line| given(line, words));
    told.clone().any(|(gives, place)| gives && place == "*.*") && told.all(|(gives, _)| gives)
}

/// What the account can't see of the tables, as reasons not to apply an undo; and foreign keys of tables that it may not
/// see.
pub(super) fn unseen(conn: &mut Conn, tables: &[TableKey]) -> holdfast_mysql::Result<Vec<String>> {
    let rows = conn.query("SHOW GRANTS")?;
    let grants: Vec<String> = (0..rows.rows.len()).filter_map(|row| rows.text(row, 0)).collect();
    let account = conn.query_text("SELECT CURRENT_USER()")?.unwrap_or_default();
    let mut dangers = Vec::new();
    for key in tables {
        if !on_table(&grants, &["TRIGGER"], key) {
            dangers.push(format!(
                "The account {account} may not see whether {key} has triggers, which would run for each row: GRANT TRIGGER \
                 ON {key} lets it."
            ));
        }
        if everywhere(&grants, &TABLES) {
            continue;
        }
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let name = quoted(&format!("{}/{}", key.database, key.table));
        let found = ["INNODB_FOREIGN", "INNODB_SYS_FOREIGN"].iter().find_map(|of| {
            // Bits 1 to 8 are actions; the others say that there is none.
            conn.query(format!(
                "SELECT FOR_NAME FROM information_schema.{of} WHERE LOWER(REF_NAME) = LOWER({name}) AND (TYPE & 15) <> 0"
            ))
            .ok()
        });
        match found.filter(|_| plain(&key.database) && plain(&key.table)) {
            Some(rows) => dangers.extend((0..rows.rows.len()).filter_map(|row| rows.text(row, 0)).map(|child| {
                format!(
                    "A foreign key of {} changes rows when rows of {key} change: what it did is not undone, and what it will \
                     do is not known.",
                    child.replace('/', ".")
                )
            })),
            None => dangers.push(format!(
                "The account {account} may not see whether foreign keys of other tables refer to {key}, and change rows when \
                 it changes: GRANT PROCESS ON *.* lets it."
            )),
        }
    }
    Ok(dangers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_found_where_they_are_given() {
        let key = TableKey { database: "shop".into(), table: "t".into() };
        let sees = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            on_table(&lines, &["TRIGGER"], &key)
        };
        assert!(sees(&["GRANT SELECT, TRIGGER ON *.* TO `u`@`%`"]));
        assert!(sees(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]));
        assert!(sees(&["GRANT USAGE ON *.* TO `u`@`%`", "GRANT TRIGGER ON `sh%`.* TO `u`@`%`"]));
        assert!(sees(&["GRANT UPDATE, TRIGGER ON `shop`.`t` TO `u`@`%`"]));
        assert!(!sees(&["GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO `u`@`%`"]));
        assert!(!sees(&[
            "GRANT TRIGGER ON `shop`.`other` TO `u`@`%`",
            "GRANT TRIGGER ON `other`.* TO `u`@`%`"
        ]));
        assert!(!sees(&["GRANT TRIGGER ON *.* TO `u`@`%`", "REVOKE TRIGGER ON `shop`.* FROM `u`@`%`"]));
        let all = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            everywhere(&lines, &TABLES)
        };
        assert!(all(&["GRANT SELECT, UPDATE ON *.* TO `u`@`%`"]));
        assert!(!all(&["GRANT UPDATE ON `shop`.* TO `u`@`%`"]) && !all(&["GRANT SELECT ON *.* TO `u`@`%`"]));
        assert!(!all(&["GRANT UPDATE ON *.* TO `u`@`%`", "REVOKE UPDATE ON `shop`.* FROM `u`@`%`"]));
    }
}
