//! The server that is copied, asked in SQL.

use holdfast_mysql::clone::rpc::has_clone;
use holdfast_mysql::{Conn, ConnectOptions};
use std::time::{Duration, Instant};

use super::door::Door;
use super::not_carried_reason;
use crate::error::Error;
use crate::outcome::{Facts, NotCarried, Position, Warning};
use crate::server_facts;
use crate::source::Watch;

/// The donor refuses clients with less.
const PACKET_BYTES_MIN: u64 = 2 << 20;

/// An SQL connection to the donor, renewed when it breaks while nobody uses it.
#[derive(Debug)]
pub(super) struct Donor {
    door: Door,
    conn: Conn,
}

impl Donor {
    pub(super) fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        let (door, conn) = Door::first(options)?;
        Ok(Self { door, conn })
    }

    /// The way to more connections to this server.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    pub(super) fn version(&self) -> &holdfast_mysql::ServerVersion {
        self.conn.server()
    }

    fn unfit(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Unfit {
            server: self.door.options().endpoint.to_string(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    fn account(&mut self) -> Result<String, Error> {
        let account = self.conn.query_text("SELECT CURRENT_USER()")?.unwrap_or_default();
        Ok(account.rsplit_once('@').map_or(account.clone(), |(user, host)| format!("'{user}'@'{host}'")))
    }

    /// Everything that would make the clone fail later, each with the line that helps.
    pub(super) fn refuse_unfit(&mut self) -> Result<(), Error> {
        let version = self.conn.server().clone();
        if version.is_mariadb() {
            return Err(self.unfit("MariaDB has no clone protocol", "Copy it with mariadb-backup instead"));
        }
        if !has_clone(&version) {
            let problem = format!("{version} is older than the clone protocol");
            return Err(
                self.unfit(problem, "It came with MySQL 8.0.17: upgrade, or protect the server as a folder")
            );
        }
        let plugin = "SELECT PLUGIN_STATUS FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone'";
        match self.conn.query_text(plugin)?.as_deref() {
            Some("ACTIVE") => {}
            Some(status) => {
                let problem = format!("its clone plugin is {status}");
                return Err(self.unfit(problem, "Start the server with --clone=FORCE_PLUS_PERMANENT"));
            }
            None => {
                let remedy = "Run: INSTALL PLUGIN clone SONAME 'mysql_clone.so';";
                return Err(self.unfit("the clone plugin is not loaded", remedy));
            }
        }
        if self.conn.query("SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'")?.text(0, 1).as_deref()
            == Some("OFF")
        {
            let remedy = "Run: ALTER INSTANCE ENABLE INNODB REDO_LOG;";
            return Err(self.unfit("its redo log is switched off, so no copy of it can be recovered", remedy));
        }
        let packet = self.conn.query_text("SELECT @@global.max_allowed_packet")?;
        let packet: u64 = packet.and_then(|text| text.parse().ok()).unwrap_or(0);
        if packet < PACKET_BYTES_MIN {
            let problem = format!("max_allowed_packet is {packet}, and a clone needs {PACKET_BYTES_MIN}");
            return Err(self.unfit(problem, "Run: SET PERSIST max_allowed_packet = 67108864;"));
        }
        self.refuse_encrypted()?;
        // Asked now, so that an account that may not see it is told before the copy and not after it.
        self.position().map(drop)
    }

    fn refuse_encrypted(&mut self) -> Result<(), Error> {
        let logs = "SELECT @@global.innodb_redo_log_encrypt, @@global.innodb_undo_log_encrypt";
        let row = self.conn.query(logs)?;
        for (column, name) in ["innodb_redo_log_encrypt", "innodb_undo_log_encrypt"].into_iter().enumerate() {
            if matches!(row.text(0, column).as_deref(), Some("1" | "ON")) {
                let problem = format!("{name} is on, and encryption at rest can't be copied yet");
                return Err(self.unfit(problem, format!("Run: SET PERSIST {name} = OFF;")));
            }
        }
        let spaces =
            "SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE ENCRYPTION = 'Y' ORDER BY NAME";
        match self.conn.query(spaces) {
            Ok(rows) => match rows.text(0, 0) {
                None => Ok(()),
                Some(file) => Err(encrypted(file, rows.rows.len())),
            },
            // Without PROCESS it may not be asked; the clone's own list of files tells it too.
            Err(error) if error.code() == Some(1227) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn facts(&mut self) -> Result<Facts, Error> {
        server_facts::variables(&mut self.conn)
    }

    pub(super) fn accounts(&mut self) -> Result<(Facts, Option<Warning>), Error> {
        server_facts::accounts(&mut self.conn)
    }

    /// Tables of other engines, as far as the account may see them; a warning if it may not see all.
    pub(super) fn tables_not_carried(&mut self) -> Result<(Vec<NotCarried>, Vec<Warning>), Error> {
        let (tables, more) = server_facts::tables_not_in(&mut self.conn, &["InnoDB"], not_carried_reason())?;
        let mut warnings = Vec::from_iter(more);
        if !server_facts::missing_privileges(&mut self.conn, &["SELECT"])?.is_empty() {
            let account = self.account()?;
            let text = format!(
                "tables of other engines than InnoDB are not carried, and {account} may not see which there are: to have \
                 them named, GRANT SELECT ON *.* TO {account}"
            );
            warnings.push(Warning::Note(text));
        }
        Ok((tables, warnings))
    }

    /// The end of the binary log now; `None` if the server writes none.
    pub(super) fn position(&mut self) -> Result<Option<Position>, Error> {
        // 8.2 gave the statement its present name, 8.4 took the old one away.
        let new = self.conn.server().numbers() >= (8, 2, 0);
        let statement = if new { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
        let result = match self.conn.query(statement) {
            Err(error) if error.is_network() => {
                // A clone can take longer than the server lets a session sleep.
                self.conn = self.door.again()?;
                self.conn.query(statement)
            }
            other => other,
        };
        let rows = match result {
            Err(error) if error.code() == Some(1227) => {
                let account = self.account()?;
                let remedy = format!("Run: GRANT REPLICATION CLIENT ON *.* TO {account};");
                return Err(self.unfit("the account may not see the binary log's position", remedy));
            }
            other => other?,
        };
        let (Some(file), Some(offset)) = (rows.text_by_name(0, "File"), rows.text_by_name(0, "Position"))
        else {
            return Ok(None);
        };
        let offset = offset.parse().map_err(|_| Error::Malformed {
            place: format!("the answer to {statement}"),
            expected: "a position".to_owned(),
            got: offset.clone(),
        })?;
        // A set of several servers comes with line breaks.
        let gtid = rows.text_by_name(0, "Executed_Gtid_Set").unwrap_or_default();
        let gtid = gtid.split_whitespace().collect();
        Ok(Some(Position { file, offset, gtid }))
    }

    /// Waits for a clone of our account that is under way on the donor, at most `limit`: when a backup was
    /// killed, its donor notices at the next bytes that nobody takes them, some seconds later, and refuses another
    /// clone until then.
    pub(super) fn wait_for_turn(&mut self, limit: Duration, watch: &dyn Watch) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            let sessions = self.conn.query("SHOW PROCESSLIST")?;
            let command = |row| sessions.text_by_name(row, "Command").unwrap_or_default();
            let cloning = (0..sessions.rows.len()).any(|row| command(row).eq_ignore_ascii_case("clone"));
            if !cloning || Instant::now() > deadline {
                return Ok(());
            }
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends sessions of ours on the donor. Best effort: they may be gone.
    pub(super) fn kill(&mut self, sessions: &[u32]) {
        self.conn.set_read_timeout(Duration::from_secs(1));
        for session in sessions {
            let _ = self.conn.execute(format!("KILL {session}"));
        }
    }

    /// Says which grant or plugin is missing, if that is what the donor's refusal of clone mode means.
    pub(super) fn explain(&mut self, error: holdfast_mysql::Error) -> Error {
        match error.code() {
            Some(1227) => {
                let Ok(account) = self.account() else { return error.into() };
                let remedy = format!("Run: GRANT BACKUP_ADMIN ON *.* TO {account};");
                self.unfit(format!("the account {account} lacks BACKUP_ADMIN"), remedy)
            }
            Some(1524) => {
                let remedy = "Run: INSTALL PLUGIN clone SONAME 'mysql_clone.so';";
                self.unfit("the clone plugin is not loaded", remedy)
            }
            Some(3634) => self.unfit(
                "another clone of it is under way, and a server gives one at a time",
                "Wait for it, or end it with KILL (SHOW PROCESSLIST: Command = clone)",
            ),
            Some(1205) => self.unfit(
                "its backup lock could not be had, because DDL or another backup holds it",
                "Repeat the backup when that is over",
            ),
            Some(3872) => self.unfit(
                "it has encrypted tablespaces, which it sends over TLS only",
                "Connect with --tls=required",
            ),
            _ => error.into(),
        }
    }
}

pub(super) fn encrypted(file: String, count: usize) -> Error {
    let more = match count {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Error::Encrypted { file, more }
}
