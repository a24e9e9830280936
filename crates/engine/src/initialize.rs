//! Makes a new, empty datadir: for the demo and for tests.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_mysql::Flavor;

use crate::command;
use crate::error::{Error, Result};
use crate::programs::Programs;
use crate::temporary::{self, TMP_DIR};

/// Longest time to initialise: 2 to 5 s on an idle machine, a minute on a crowded one.
const LIMIT: Duration = Duration::from_secs(300);

/// Initialises `datadir` (absent or empty) with a `root@localhost` that has no password.
/// The log goes to `log`. What is written is not synced: this is no place for data of worth
/// until the server has been started and stopped once.
pub fn initialize(programs: &Programs, datadir: &Path, log: &Path) -> Result<()> {
    std::fs::create_dir_all(datadir).map_err(|source| Error::file("make", datadir, source))?;
    let mut command = match programs.flavor() {
        Flavor::MySql => {
            let mut command = Command::new(&programs.server);
            command.args([
                "--no-defaults",
                "--initialize-insecure",
                "--skip-log-bin",
                "--innodb-redo-log-capacity=8M",
                "--innodb-doublewrite=OFF",
                "--innodb-flush-method=nosync",
                "--innodb-flush-log-at-trx-commit=0",
            ]);
            command
        }
        Flavor::MariaDb => {
            let program = programs.install_db.as_ref().ok_or_else(|| Error::NoHelper {
                program: "mariadb-install-db".to_owned(),
                server: programs.server.clone(),
                package: "mariadb-server-core",
            })?;
            let mut command = Command::new(program);
            command.args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--innodb-flush-log-at-trx-commit=0",
            ]);
            command
        }
    };
    temporary::create(datadir)?;
    command.arg(format!("--datadir={}", datadir.display()));
    command.arg(format!("--tmpdir={}", datadir.join(TMP_DIR).display()));
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    let what = format!("initialising {} on {}", programs.flavor(), datadir.display());
    let made = command::run(command, &what, log, LIMIT);
    temporary::remove(datadir);
    made
}
