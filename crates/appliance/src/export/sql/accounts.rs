//! Accounts, roles and grants as statements that make them, or set them right where they are there already.
//!
//! Accounts come first, since definitions name them; grants last, since they name what is defined.

use super::dump::{Done, Dump, text, texts, value};
use holdfast_engine::account::PREFIX;
use holdfast_restore::catalog::quoted_name;

/// An account or a role.
struct Account {
    /// As statements name it.
    name: String,
    /// How it is made.
    made: String,
    /// A role of MariaDB, which has no host.
    role: bool,
}

/// Writes how they are made.
pub(super) fn accounts(dump: &mut Dump<'_, '_>) -> Done<()> {
    let mariadb = dump.mariadb();
    let accounts = all(dump)?;
    dump.script.remark("Accounts")?;
    for account in &accounts {
        if account.role {
            dump.script.statement(format!("CREATE ROLE IF NOT EXISTS {}", account.name))?;
            continue;
        }
        let Some(rest) = account.made.strip_prefix("CREATE USER ") else {
            dump.warnings.push(format!(
                "the account {} is not in the script: its definition is not known",
                account.name
            ));
            continue;
        };
        let rest = if mariadb { rest.to_owned() } else { with_password(&without_default_roles(rest)) };
        dump.script.statement(format!("CREATE USER IF NOT EXISTS {rest}"))?;
        dump.script.statement(format!("ALTER USER {rest}"))?;
    }
    Ok(())
}

/// Asks the server for all of them.
fn all(dump: &mut Dump<'_, '_>) -> Done<Vec<Account>> {
    let mariadb = dump.mariadb();
    let found = dump.conn.query("SELECT User, Host FROM mysql.user ORDER BY User, Host")?;
    let mut accounts = Vec::new();
    for row in 0..found.rows.len() {
        let (user, host) = (found.text(row, 0).unwrap_or_default(), found.text(row, 1).unwrap_or_default());
        // Ours come and go; the server's own are made by each version.
        if user.starts_with(PREFIX) || user.starts_with("mysql.") || user == "mariadb.sys" || user == "PUBLIC"
        {
            continue;
        }
        // MariaDB's roles have no host, and neither has an account of any host but its empty text.
        let role = mariadb && host.is_empty();
        let name = if role { quoted_name(&user) } else { format!("{}@{}", text(&user), text(&host)) };
        let made = if role {
            String::new()
        } else {
            let made = dump.conn.query(format!("SHOW CREATE USER {name}"))?;
            String::from_utf8_lossy(value(&made, 0)?).into_owned()
        };
        accounts.push(Account { name, made, role });
    }
    Ok(accounts)
}

/// Writes what they may do.
pub(super) fn grants(dump: &mut Dump<'_, '_>) -> Done<()> {
    let mariadb = dump.mariadb();
    let accounts = all(dump)?;
    dump.script.remark("Grants")?;
    for account in &accounts {
        let grants = dump.conn.query(format!("SHOW GRANTS FOR {}", account.name))?;
        for grant in texts(&grants, 0) {
            if !mariadb || !grant.starts_with("GRANT PROXY ") {
                dump.script.statement(grant)?;
            }
        }
    }
    if mariadb {
        proxies(dump)?;
    }
    if !mariadb {
        let defaults = dump.conn.query(
            "SELECT USER, HOST, DEFAULT_ROLE_USER, DEFAULT_ROLE_HOST FROM mysql.default_roles ORDER BY USER, HOST, \
             DEFAULT_ROLE_USER, DEFAULT_ROLE_HOST",
        )?;
        let mut of: Vec<(String, Vec<String>)> = Vec::new();
        for row in 0..defaults.rows.len() {
            let part = |column| text(&defaults.text(row, column).unwrap_or_default());
            let (account, role) = (format!("{}@{}", part(0), part(1)), format!("{}@{}", part(2), part(3)));
            match of.last_mut() {
                Some((last, roles)) if *last == account => roles.push(role),
                _ => of.push((account, vec![role])),
            }
        }
        for (account, roles) in of {
            dump.script.statement(format!("ALTER USER {account} DEFAULT ROLE {}", roles.join(", ")))?;
        }
    }
    Ok(dump.script.statement("FLUSH PRIVILEGES")?)
}

/// MariaDB's proxies. SHOW GRANTS tells a proxied account of no host as one of all hosts, and granted so it would be another.
/// Those of no user and no host are root's, which every installation makes and no GRANT can.
fn proxies(dump: &mut Dump<'_, '_>) -> Done<()> {
    let found = dump.conn.query(
        "SELECT Proxied_user, Proxied_host, User, Host, With_grant FROM mysql.proxies_priv \
         WHERE Proxied_user <> '' OR Proxied_host <> '' ORDER BY User, Host, \
         Proxied_user, Proxied_host",
    )?;
    for row in 0..found.rows.len() {
        let part = |column| text(&found.text(row, column).unwrap_or_default());
        let option = if part(4) == "'1'" { " WITH GRANT OPTION" } else { "" };
        dump.script.statement(format!(
            "GRANT PROXY ON {}@{} TO {}@{}{option}",
            part(0),
            part(1),
            part(2),
            part(3)
        ))?;
    }
    Ok(())
}

/// The definition without its default roles, which exist only later. They stand between the password and REQUIRE, and
/// names stand between backticks.
fn without_default_roles(made: &str) -> String {
    const WORD: &str = " DEFAULT ROLE ";
    let (mut quote, mut start) = (None, None);
    for (at, c) in made.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '`' | '\'') => quote = Some(c),
            None => {
                let rest = made.get(at..).unwrap_or_default();
                if rest.starts_with(WORD) {
                    start = Some(at);
                } else if let Some(from) = start
                    && rest.starts_with(" REQUIRE ")
                {
                    return format!("{}{rest}", made.get(..from).unwrap_or_default());
                }
            }
        }
    }
    made.to_owned()
}

/// The definition with an empty password said in words: an ALTER USER that only names the plugin lets the password expire.
fn with_password(made: &str) -> String {
    const WORD: &str = " IDENTIFIED WITH '";
    let Some(at) = made.find(WORD) else { return made.to_owned() };
    let plugin = at + WORD.len();
    let Some(end) = made.get(plugin..).and_then(|rest| rest.find('\'')).map(|end| plugin + end + 1) else {
        return made.to_owned();
    };
    let (head, rest) = made.split_at(end);
    if rest.starts_with(" AS ") { made.to_owned() } else { format!("{head} AS ''{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_roles_are_cut_out_and_nothing_that_looks_like_them() {
        assert_eq!(
            without_default_roles(
                "`a`@`%` IDENTIFIED WITH 'x' AS 0x41 DEFAULT ROLE `r`@`%`,` REQUIRE `@`%` REQUIRE NONE"
            ),
            "`a`@`%` IDENTIFIED WITH 'x' AS 0x41 REQUIRE NONE"
        );
        let plain = "` DEFAULT ROLE `@`%` IDENTIFIED WITH 'x' REQUIRE NONE";
        assert_eq!(without_default_roles(plain), plain);
        assert_eq!(
            with_password("`a`@`%` IDENTIFIED WITH 'x' REQUIRE NONE"),
            "`a`@`%` IDENTIFIED WITH 'x' AS '' REQUIRE NONE"
        );
        assert_eq!(
            with_password("`a`@`%` IDENTIFIED WITH 'x' AS 0x41"),
            "`a`@`%` IDENTIFIED WITH 'x' AS 0x41"
        );
    }
}
