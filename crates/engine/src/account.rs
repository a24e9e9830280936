//! The one-time account by which we log in to a private server.
//!
//! A copied server's accounts are the source's, and we know none of their passwords; with
//! `--skip-grant-tables` account statements could not be replayed. So each start runs an init
//! file that makes an account of ours with a password that lives as long as the start does.
//! It is dropped before the server is handed over, and one that a crash left behind is dropped
//! at the next start.

use std::fmt::Write as _;

use holdfast_mysql::{Conn, Secret};

use crate::error::{Error, Result};

/// Every account of ours begins with this; 12 hexadecimal digits follow.
pub const PREFIX: &str = "holdfast_private_";

/// Name and password of one start.
#[derive(Debug, Clone)]
pub struct OneTimeAccount {
    /// The name; the host is always `localhost`.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl OneTimeAccount {
    /// Makes up an account.
    pub fn generate() -> Result<Self> {
        let mut random = [0_u8; 30];
        getrandom::fill(&mut random).map_err(|error| Error::Random(error.to_string()))?;
        let (name, password) = random.split_at(6);
        // The ends satisfy password rules (lower, upper, digit, special) that a restored server may have loaded.
        let password = format!("{}zQ7-", hex(password));
        Ok(Self { user: format!("{PREFIX}{}", hex(name)), password: Secret::new(password.into_bytes()) })
    }

    /// The statements that make the account, one a line as `--init-file` wants them. They are not
    /// written to the server's binary log.
    #[must_use]
    pub fn init_file(&self) -> String {
        let user = &self.user;
        let password = String::from_utf8_lossy(self.password.expose()).into_owned();
        format!(
            "SET SESSION sql_log_bin = 0;\n\
             CREATE USER '{user}'@'localhost' IDENTIFIED BY '{password}';\n\
             GRANT ALL PRIVILEGES ON *.* TO '{user}'@'localhost' WITH GRANT OPTION;\n"
        )
    }
}

/// Names of the accounts that earlier starts left behind, `current` excepted.
pub fn stale(conn: &mut Conn, current: &str) -> Result<Vec<String>> {
    let accounts = conn.query(format!(
        "SELECT User FROM mysql.user WHERE Host = 'localhost' AND User REGEXP '^{PREFIX}[0-9a-f]{{12}}$'"
    ))?;
    let names = (0..accounts.rows.len()).filter_map(|row| accounts.text(row, 0));
    Ok(names.filter(|name| name != current).collect())
}

/// Drops accounts of ours, without a trace in the binary log.
pub fn drop_accounts(conn: &mut Conn, names: &[String]) -> Result<()> {
    conn.execute("SET SESSION sql_log_bin = 0")?;
    for name in names {
        conn.execute(format!("DROP USER IF EXISTS '{name}'@'localhost'"))?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_enough_for_both_servers_and_need_no_quoting() {
        let account = OneTimeAccount::generate().unwrap();
        assert!(account.user.len() <= 32, "MySQL allows 32 characters: {}", account.user);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!(account.user.chars().all(plain));
        assert!(String::from_utf8_lossy(account.password.expose()).chars().all(plain));
    }

    #[test]
    fn each_start_has_its_own_account() {
        let (a, b) = (OneTimeAccount::generate().unwrap(), OneTimeAccount::generate().unwrap());
        assert_ne!(a.user, b.user);
        assert_ne!(a.password.expose(), b.password.expose());
    }
}
