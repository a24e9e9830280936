//! A server of our own on a folder: start, log in, stop.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use holdfast_io::apart;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, Flavor, Secret, TlsMode};
use rustix::process::{Pid, Signal};

use crate::account::{self, OneTimeAccount};
use crate::command;
use crate::error::{Error, Result};
use crate::orphan::{self, PID_FILE};
use crate::programs::Programs;
use crate::recovered::{self, RecoveredCoordinates};
use crate::temporary::{self, TMP_DIR};

/// Longest path of a socket: `sun_path` has 108 bytes with its NUL.
const SOCKET_PATH_MAX: usize = 107;

/// How often a starting server is asked whether it lets us in.
const POLL: Duration = Duration::from_millis(30);

/// Text of the server's log that is searched for what recovery printed.
const LOG_MAX: u64 = 8 << 20;

/// Where a private server listens beside its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listen {
    /// Nowhere: no network at all.
    #[default]
    SocketOnly,
    /// On this port of the loopback address.
    Loopback(u16),
}

/// How a private server is started.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The folder.
    pub datadir: PathBuf,
    /// The programs.
    pub programs: Programs,
    /// What the server is for, in messages: `the restored server`.
    pub purpose: String,
    /// Where it listens.
    pub listen: Listen,
    /// Its socket; by default one in a folder of its own that only we can enter.
    pub socket: Option<PathBuf>,
    /// Its error log, appended to; by default in that folder.
    pub log: Option<PathBuf>,
    /// Whether it writes a binary log. Private servers do not; the ones of tests and demo do.
    pub binlog: bool,
    /// Options for this server alone, after all others.
    pub extra_args: Vec<String>,
    /// Longest time from the start until it lets us in, recovery included.
    pub timeout: Duration,
    /// MySQL: files of tables are missing, and recovery is to leave their changes out. Such a server takes no change: it
    /// is asked what it found and shut down. Whoever can enter its socket's folder logs in.
    pub files_missing: bool,
}

impl StartOptions {
    /// Options of a private server: no network, no binary log, half an hour to recover.
    #[must_use]
    pub fn new(programs: Programs, datadir: impl Into<PathBuf>) -> Self {
        Self {
            datadir: datadir.into(),
            programs,
            purpose: "the private server".to_owned(),
            listen: Listen::SocketOnly,
            socket: None,
            log: None,
            binlog: false,
            extra_args: Vec::new(),
            timeout: Duration::from_secs(30 * 60),
            files_missing: false,
        }
    }
}

/// A running server of ours. Dropping it kills and reaps the process.
#[derive(Debug)]
pub struct PrivateServer {
    child: Option<Child>,
    pid: i32,
    options: StartOptions,
    account: OneTimeAccount,
    socket: PathBuf,
    log: PathBuf,
    log_from: u64,
    run_dir: RunDir,
    gtids_at_start: Option<String>,
    in_network: Option<String>,
}

impl PrivateServer {
    /// Starts a server on a folder and waits until it lets us in.
    ///
    /// Fails if another server uses the folder, if the server ends or does not let us in within
    /// the time allowed; the error quotes the end of its log.
    pub fn start(options: StartOptions) -> Result<Self> {
        Self::start_while(options, &|| true)
    }

    /// The same, for as long as `go_on` says so: a recovery may take hours. A server that is called off is killed.
    pub fn start_while(mut options: StartOptions, go_on: &dyn Fn() -> bool) -> Result<Self> {
        options.datadir = options
            .datadir
            .canonicalize()
            .map_err(|source| Error::file("open the folder", &options.datadir, source))?;
        if let Some(pid) = orphan::server_on(&options.datadir) {
            return Err(Error::InUse { datadir: options.datadir, pid });
        }
        let run_dir = RunDir::create()?;
        temporary::create(&options.datadir)?;
        let account = OneTimeAccount::generate()?;
        let init_file = run_dir.path.join("init.sql");
        let init = if options.files_missing { String::new() } else { account.init_file() };
        write_private(&init_file, &init)?;
        let socket = options.socket.clone().unwrap_or_else(|| run_dir.path.join("s"));
        check_socket(&socket)?;
        let log = options.log.clone().unwrap_or_else(|| run_dir.path.join("error.log"));
        let log_from = fs::metadata(&log).map_or(0, |metadata| metadata.len());

        let command = || {
            let mut command = Command::new(&options.programs.server);
            command.args(arguments(&options, &socket, &log, &init_file, &run_dir.path));
            // A group of its own: an interrupt from the terminal is ours to handle, not the server's.
            command.process_group(0);
            command
        };
        let (child, in_network) = spawn(&command, options.listen, &log)?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let mut server = Self {
            child: Some(child),
            pid,
            options,
            account,
            socket,
            log,
            log_from,
            run_dir,
            gtids_at_start: None,
            in_network,
        };
        let mut conn = server.wait_until_it_lets_us_in(go_on)?;
        // The password need not lie on a disk any longer.
        let _ = fs::remove_file(&init_file);
        if !server.options.files_missing {
            let stale = account::stale(&mut conn, &server.account.user)?;
            account::drop_accounts(&mut conn, &stale)?;
        }
        server.gtids_at_start = gtids(&mut conn, server.options.programs.flavor())?;
        Ok(server)
    }

    fn wait_until_it_lets_us_in(&mut self, go_on: &dyn Fn() -> bool) -> Result<Conn> {
        let deadline = Instant::now() + self.options.timeout;
        let mut last: Option<holdfast_mysql::Error> = None;
        loop {
            if let Some(status) = self.exit_status()? {
                return Err(Error::Failed {
                    program: self.name(),
                    status: format!("it ended with {status}"),
                    tail: command::quote_tail_from(&self.log, self.log_from),
                });
            }
            if self.socket.exists() {
                match Conn::connect(&self.connect_options()) {
                    Ok(conn) => return Ok(conn),
                    Err(error) => last = Some(error),
                }
            }
            if !go_on() {
                return Err(Error::Cancelled { program: format!("starting {}", self.name()) });
            }
            if Instant::now() >= deadline {
                let said = last.map_or_else(String::new, |error| format!(" (last answer: {error})"));
                return Err(Error::Deadline {
                    program: format!("starting {}{said}", self.name()),
                    limit: self.options.timeout,
                    tail: command::quote_tail_from(&self.log, self.log_from),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// How to log in to it with the one-time account.
    #[must_use]
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions::new(Endpoint::Unix(self.socket.clone()), self.account.user.clone())
            .password(self.account.password.clone())
            .tls_mode(TlsMode::Disabled)
    }

    /// Logs in with the one-time account.
    pub fn connect(&self) -> Result<Conn> {
        Ok(Conn::connect(&self.connect_options())?)
    }

    /// Logs in as somebody else, over the socket.
    pub fn connect_as(&self, user: &str, password: Option<Secret>) -> Result<Conn> {
        let mut options =
            ConnectOptions::new(Endpoint::Unix(self.socket.clone()), user).tls_mode(TlsMode::Disabled);
        options.password = password;
        Ok(Conn::connect(&options)?)
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The port, if it listens on one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.options.listen {
            Listen::SocketOnly => None,
            Listen::Loopback(port) => Some(port),
        }
    }

    /// Why it runs in the host's network though it was to listen nowhere: what the kernel said when it was to have a network
    /// namespace of its own. Tables of an engine that asks other servers ask them then.
    #[must_use]
    pub fn in_network(&self) -> Option<&str> {
        self.in_network.as_deref()
    }

    /// The same as a sentence, for whoever asked for what the server is started for.
    #[must_use]
    pub fn network_remark(&self) -> Option<String> {
        self.in_network().map(|why| {
            format!(
                "The private server ran in this host's network, since the system granted it no network namespace of its own \
                 ({why}): tables of an engine that asks other servers may have asked them."
            )
        })
    }

    /// The folder.
    #[must_use]
    pub fn datadir(&self) -> &Path {
        &self.options.datadir
    }

    /// The programs.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.options.programs
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Name of the one-time account; its host is `localhost`.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account.user
    }

    /// What the server wrote to its error log since this start, at most the last 8 MiB.
    #[must_use]
    pub fn log_text(&self) -> String {
        command::read_from(&self.log, self.log_from, LOG_MAX)
    }

    /// Where the folder's data stood when the server had recovered it, in the server's own words.
    /// Ask before anything is written: MySQL forgets the file when its clone status is queried.
    pub fn recovered(&self) -> Result<RecoveredCoordinates> {
        let found = match self.options.programs.flavor() {
            Flavor::MySql => recovered::from_clone_status(&self.options.datadir)?,
            Flavor::MariaDb => recovered::from_mariadb_log(&self.log_text()),
        };
        let mut found = found.unwrap_or_default();
        // The status file's GTIDs are appended some time after the start; the server's are there at once.
        if let Some(gtids) = &self.gtids_at_start {
            found.gtids = Some(gtids.clone());
        }
        Ok(found)
    }

    /// The exit status if the process has ended.
    pub fn exit_status(&mut self) -> Result<Option<std::process::ExitStatus>> {
        match &mut self.child {
            Some(child) => child.try_wait().map_err(|source| Error::file("wait for", &self.log, source)),
            None => Ok(None),
        }
    }

    /// Shuts the server down cleanly. If it has not ended when `limit` passes, this is an error
    /// and the process is killed by the drop of `self`.
    pub fn stop(mut self, limit: Duration) -> Result<()> {
        self.stop_in_place(limit)
    }

    fn stop_in_place(&mut self, limit: Duration) -> Result<()> {
        let name = self.name();
        let Some(child) = &mut self.child else { return Ok(()) };
        if let Some(pid) = Pid::from_raw(self.pid) {
            // Fails only if it has ended already, which the wait reports.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let ended =
            command::wait(child, limit).map_err(|source| Error::file("wait for", &self.log, source))?;
        if ended.is_some() {
            temporary::remove(&self.options.datadir);
        }
        let tail = command::quote_tail_from(&self.log, self.log_from);
        match ended {
            Some(status) if status.success() => {
                self.child = None;
                Ok(())
            }
            Some(status) => {
                self.child = None;
                Err(Error::Failed { program: format!("stopping {name}"), status: status.to_string(), tail })
            }
            None => Err(Error::Deadline { program: format!("stopping {name}"), limit, tail }),
        }
    }

    /// Kills the server as a power cut would, and reaps it.
    pub fn kill(mut self) {
        self.kill_in_place();
    }

    fn kill_in_place(&mut self) {
        if let Some(mut child) = self.child.take() {
            command::kill_and_reap(&mut child);
            temporary::remove(&self.options.datadir);
        }
    }

    /// Lets the server run on after this process. Returns its process. Its one-time account stays:
    /// drop it before with [`PrivateServer::drop_account`].
    #[must_use]
    pub fn detach(mut self) -> i32 {
        // Nobody waits for it from here on; the system's init reaps it.
        self.child = None;
        self.run_dir.keep = self.socket.starts_with(&self.run_dir.path);
        self.pid
    }

    /// Drops the one-time account; the next start makes a new one. Connections that are open stay.
    pub fn drop_account(&self, conn: &mut Conn) -> Result<()> {
        account::drop_accounts(conn, std::slice::from_ref(&self.account.user))
    }

    fn name(&self) -> String {
        format!(
            "{} ({} on {})",
            self.options.purpose,
            self.options.programs.version,
            self.options.datadir.display()
        )
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.kill_in_place();
    }
}

/// The server's GTID state: what it has executed (MySQL) or where it stands (MariaDB).
fn gtids(conn: &mut Conn, flavor: Flavor) -> Result<Option<String>> {
    let text = conn.query_text(match flavor {
        Flavor::MySql => "SELECT @@GLOBAL.gtid_executed",
        Flavor::MariaDb => "SELECT @@GLOBAL.gtid_current_pos",
    })?;
    let text: String = text.unwrap_or_default().split_whitespace().collect();
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Starts the server's process, out of the host's network where it is to listen nowhere: what is in a copy may make it ask
/// other servers. Where the kernel does not grant that, it starts in the network, and it is told why. Each try is of a
/// command of its own.
fn spawn(command: &dyn Fn() -> Command, listen: Listen, log: &Path) -> Result<(Child, Option<String>)> {
    let mut refused = None;
    if listen == Listen::SocketOnly {
        for way in apart::ways() {
            let mut apart = command();
            apart::leave_network(&mut apart, *way);
            match command::spawn(&mut apart, log) {
                Ok(child) => return Ok((child, None)),
                Err(Error::Run { source, .. }) => refused = Some(source.to_string()),
                Err(error) => return Err(error),
            }
        }
    }
    // Should the program itself not start, it says so now.
    Ok((command::spawn(&mut command(), log)?, refused))
}

fn arguments(o: &StartOptions, socket: &Path, log: &Path, init: &Path, run_dir: &Path) -> Vec<String> {
    let datadir = o.datadir.display();
    let mut args = vec![
        // Neither the host's option files nor, in MySQL, what SET PERSIST left in the folder.
        "--no-defaults".to_owned(),
        format!("--datadir={datadir}"),
        format!("--pid-file={}", o.datadir.join(PID_FILE).display()),
        format!("--socket={}", socket.display()),
        format!("--log-error={}", log.display()),
        format!("--init-file={}", init.display()),
        "--local-infile=0".to_owned(),
        format!("--tmpdir={}", o.datadir.join(TMP_DIR).display()),
        // Not DISABLED: replayed CREATE EVENT statements would be refused then.
        "--event-scheduler=OFF".to_owned(),
    ];
    match o.programs.flavor() {
        Flavor::MySql => {
            args.extend(["--secure-file-priv=NULL", "--mysqlx=OFF"].map(str::to_owned));
            let replica = if o.programs.version.numbers() >= (8, 0, 26) { "replica" } else { "slave" };
            args.push(format!("--skip-{replica}-start"));
        }
        Flavor::MariaDb => {
            // MariaDB knows no NULL here; an empty folder of ours lets nothing in or out either.
            args.push(format!("--secure-file-priv={}", run_dir.join("files").display()));
            args.push("--skip-slave-start".to_owned());
            // Every other folder in a MariaDB datadir is a schema.
            args.push(format!("--ignore-db-dirs={TMP_DIR}"));
        }
    }
    match o.listen {
        Listen::SocketOnly => args.push("--skip-networking".to_owned()),
        Listen::Loopback(port) => {
            args.extend([format!("--port={port}"), "--bind-address=127.0.0.1".to_owned()]);
        }
    }
    if !o.binlog {
        args.push("--skip-log-bin".to_owned());
    }
    if o.files_missing {
        args.extend(["--innodb-force-recovery=1", "--skip-grant-tables"].map(str::to_owned));
    }
    if rustix::process::geteuid().is_root() {
        args.push("--user=root".to_owned());
    }
    args.extend(o.extra_args.iter().cloned());
    args
}

/// A folder that only we can enter, for the socket and the init file. Removed when dropped.
#[derive(Debug)]
struct RunDir {
    path: PathBuf,
    keep: bool,
}

impl RunDir {
    fn create() -> Result<Self> {
        let mut name = [0_u8; 6];
        getrandom::fill(&mut name).map_err(|error| Error::Random(error.to_string()))?;
        let name = name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let named = |parent: &Path| parent.join(format!("holdfast-{name}"));
        let mut path = named(&std::env::temp_dir());
        // A long $TMPDIR does not fit into a socket's address.
        if path.as_os_str().as_bytes().len() + 2 > SOCKET_PATH_MAX {
            path = named(Path::new("/tmp"));
        }
        let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        make(&path).map_err(|source| Error::file("make the folder", &path, source))?;
        let files = path.join("files");
        make(&files).map_err(|source| Error::file("make the folder", &files, source))?;
        Ok(Self { path, keep: false })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.keep {
            // Left-overs in the temporary folder are harmless.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn check_socket(socket: &Path) -> Result<()> {
    let len = socket.as_os_str().as_bytes().len();
    if len <= SOCKET_PATH_MAX {
        return Ok(());
    }
    Err(Error::Path {
        path: socket.to_path_buf(),
        purpose: "socket",
        reason: format!("it has {len} bytes, and the system allows {SOCKET_PATH_MAX}"),
    })
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(|source| Error::file("make", path, source))?;
    file.write_all(text.as_bytes()).map_err(|source| Error::file("write", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_that_the_system_refuses_is_named_beforehand() {
        let long = PathBuf::from(format!("/{}", "x".repeat(SOCKET_PATH_MAX)));
        assert!(check_socket(&long).unwrap_err().to_string().contains("108 bytes"));
        assert!(check_socket(Path::new("/tmp/s")).is_ok());
    }

    #[test]
    fn the_run_folder_is_private_and_goes_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = RunDir::create().unwrap();
        let path = dir.path.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert!(!path.exists());
    }
}
