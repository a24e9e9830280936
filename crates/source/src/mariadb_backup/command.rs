//! Starting the program, with the password where nobody looks.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use holdfast_mysql::{ConnectOptions, Endpoint, TlsMode};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Program;
use crate::error::Error;

/// What the program opens to read its options; each time from the beginning.
const DEFAULTS: &str = "/proc/self/fd/0";

/// The program's names, the current one first.
const NAMES: [&str; 2] = ["mariadb-backup", "mariabackup"];

/// The program at work. Killed, with all it started, when dropped.
pub(super) struct Running {
    child: Child,
    /// What it was called by.
    pub(super) name: String,
}

impl Running {
    pub(super) fn take_outputs(&mut self) -> Result<(ChildStdout, ChildStderr), Error> {
        match (self.child.stdout.take(), self.child.stderr.take()) {
            (Some(stdout), Some(stderr)) => Ok((stdout, stderr)),
            _ => Err(Error::Thread { doing: "started mariadb-backup" }),
        }
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(super) fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.child.wait().map_err(Error::io("wait for", self.name.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill_group(&mut self.child);
        // Reaped, so that no zombie stays.
        let _ = self.child.wait();
    }
}

/// Kills the program and what it started, if it still runs.
pub(super) fn kill_group(child: &mut Child) {
    // Once it was reaped its number may belong to another process.
    if matches!(child.try_wait(), Ok(None))
        && let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
    {
        // It may end at this very moment, which is what was wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

pub(super) fn start(
    program: &Program,
    connect: &ConnectOptions,
    datadir: &Path,
    parallel: u32,
    private_dir: &Path,
) -> Result<Running, Error> {
    match program {
        Program::Command(line) => {
            let Some((name, arguments)) = line.split_first() else {
                let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
                return Err(Error::Io { doing: "start an empty command", path: PathBuf::new(), source });
            };
            let child =
                spawn(name, arguments, Stdio::null()).map_err(Error::io("start", PathBuf::from(name)))?;
            Ok(Running { child, name: name.to_string_lossy().into_owned() })
        }
        Program::Local(folder) => {
            let defaults = defaults_file(connect, private_dir)?;
            let mut data = OsString::from("--datadir=");
            data.push(datadir);
            let arguments = [
                format!("--defaults-file={DEFAULTS}").into(),
                "--backup".into(),
                "--stream=xbstream".into(),
                format!("--parallel={parallel}").into(),
                data,
            ];
            let (child, name) = spawn_local(folder.as_deref(), &arguments, &defaults)?;
            Ok(Running { child, name })
        }
    }
}

fn spawn_local(
    folder: Option<&Path>,
    arguments: &[OsString],
    defaults: &File,
) -> Result<(Child, String), Error> {
    let mut last = None;
    for name in NAMES {
        let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        let input = defaults.try_clone().map_err(Error::io("open again", "the program's options"))?;
        match spawn(path.as_os_str(), arguments, input.into()) {
            Ok(child) => return Ok((child, path.display().to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => last = Some((path, error)),
            Err(error) => return Err(Error::io("start", path)(error)),
        }
    }
    let (_, source) = last.unwrap_or_else(|| (PathBuf::new(), std::io::ErrorKind::NotFound.into()));
    let place = folder.map_or_else(|| PathBuf::from(NAMES[0]), |folder| folder.join(NAMES[0]));
    Err(Error::Io { doing: "find the program (Debian: apt install mariadb-backup)", path: place, source })
}

fn spawn(program: &std::ffi::OsStr, arguments: &[OsString], input: Stdio) -> std::io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: a wrapper script and what it started are killed together, and Ctrl-C is ours to handle.
        .process_group(0)
        .spawn()
}

/// A file without a name (mode 0600), with what must not be an argument. The program has it as
/// its standard input; however we end, nothing of it stays.
fn defaults_file(connect: &ConnectOptions, dir: &Path) -> Result<File, Error> {
    let mut file = tempfile::tempfile_in(dir).map_err(Error::io("make a file in", dir))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(Error::io("make a private file in", dir))?;
    file.write_all(&options(connect)).and_then(|()| file.flush()).map_err(Error::io("write in", dir))?;
    Ok(file)
}

fn options(connect: &ConnectOptions) -> Vec<u8> {
    let mut out = b"[client]\n".to_vec();
    let mut add = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        for &byte in value {
            match byte {
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'"' => out.extend_from_slice(b"\\\""),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                other => out.push(other),
            }
        }
        out.extend_from_slice(b"\"\n");
    };
    add("user", connect.user.as_bytes());
    if let Some(password) = &connect.password {
        add("password", password.expose());
    }
    match &connect.endpoint {
        Endpoint::Tcp { host, port } => {
            // "localhost" would mean a socket to it.
            add("host", if host == "localhost" { b"127.0.0.1" } else { host.as_bytes() });
            add("port", port.to_string().as_bytes());
            add("protocol", b"tcp");
        }
        Endpoint::Unix(path) => add("socket", path.as_os_str().as_encoded_bytes()),
    }
    let file = |path: &Option<PathBuf>| path.as_ref().map(|p| p.as_os_str().as_encoded_bytes().to_vec());
    for (name, path) in
        [("ssl-ca", &connect.tls.ca), ("ssl-cert", &connect.tls.cert), ("ssl-key", &connect.tls.key)]
    {
        if let Some(path) = file(path) {
            add(name, &path);
        }
    }
    match connect.tls.mode {
        TlsMode::Disabled => out.extend_from_slice(b"skip-ssl\n"),
        TlsMode::Preferred => {}
        TlsMode::Required | TlsMode::VerifyCa => out.extend_from_slice(b"ssl\n"),
        TlsMode::VerifyIdentity => out.extend_from_slice(b"ssl\nssl-verify-server-cert\n"),
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_password_is_in_a_file_of_ours_only_and_in_no_argument() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Tcp { host: "db1".to_owned(), port: 3307 };
        let connect = ConnectOptions::new(endpoint, "bk").password("a\"b\\c#d\n".into());
        let file = defaults_file(&connect, dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert!(text.contains("password=\"a\\\"b\\\\c#d\\n\"\n"), "{text}");
        assert!(text.contains("host=\"db1\"\nport=\"3307\"\n"), "{text}");
    }
}
