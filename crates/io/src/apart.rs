//! A program that is to have no network: its process gets a network namespace of its own, in which there is nothing.
//!
//! This is no door to storage. It is here because what a process does between its fork and its program is `unsafe` code,
//! of which there is none elsewhere. Sockets with a path go on to work: they belong to the file system.
#![expect(unsafe_code, reason = "the child is told before it runs its program; see the SAFETY paragraphs")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// How a process comes by a network namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// At once, which needs the right to administer the system.
    Alone,
    /// Within a user namespace of its own, in which it stays who it is.
    WithUser,
}

/// The ways for this process, in the order in which they are to be tried. Root may lack the right that the first one needs,
/// in a container, and be granted a user namespace all the same; nobody else has it.
#[must_use]
pub fn ways() -> &'static [Way] {
    if rustix::process::geteuid().is_root() { &[Way::Alone, Way::WithUser] } else { &[Way::WithUser] }
}

/// Has the process of `command` leave the host's network before its program begins. Where the kernel does not let it,
/// `spawn` fails, with the kernel's error; nothing was started then.
pub fn leave_network(command: &mut Command, way: Way) {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // Made here: between fork and exec there is no allocator.
    let users = format!("{user} {user} 1\n");
    let groups = format!("{group} {group} 1\n");
    let leave = move || match way {
        Way::Alone => unshare(libc::CLONE_NEWNET),
        Way::WithUser => {
            // Of a process that leaves no core (cores.rs) nobody but root may write the maps, not even itself. The limit on
            // cores holds until the child's memory is another program's.
            // SAFETY: a call without pointers.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
            unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
            // A group may be mapped by who has no rights outside only where the others can't be dropped.
            write(c"/proc/self/setgroups", b"deny")?;
            write(c"/proc/self/uid_map", users.as_bytes())?;
            write(c"/proc/self/gid_map", groups.as_bytes())
        }
    };
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are allowed. It calls
    // prctl, unshare, open, write and close and reads errno; it neither allocates nor takes a lock, and what it refers to was
    // made before the fork and belongs to it.
    unsafe {
        command.pre_exec(leave);
    }
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: a call without pointers; a child between fork and exec has one thread, and shares no files by these flags.
    match unsafe { libc::unshare(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes all of it at once, as the kernel wants it of these files.
fn write(path: &std::ffi::CStr, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the path ends with a NUL and lives as long as the call.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the pointer and the length are those of one slice, which lives as long as the call.
    let written = unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
    let error = io::Error::last_os_error();
    // SAFETY: the descriptor is ours, and nobody else has it.
    unsafe { libc::close(file) };
    match usize::try_from(written) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EIO)),
        Err(_) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::process::Stdio;

    /// Asks a port of the loopback address by the shell's own means.
    fn reaches(port: u16, prepare: impl FnOnce(&mut Command)) -> io::Result<bool> {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        prepare(&mut command);
        Ok(command.status()?.success())
    }

    #[test]
    fn who_left_the_network_reaches_no_listener_of_the_host_and_still_writes_to_our_files() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(reaches(port, |_| {}).unwrap(), "it is there");
        let dir = tempfile::tempdir().unwrap();
        let _socket = UnixListener::bind(dir.path().join("s")).unwrap();
        let ways = [Way::Alone, Way::WithUser];
        let mut gone = 0;
        for way in ways {
            match reaches(port, |command| leave_network(command, way)) {
                Ok(reached) => {
                    assert!(!reached, "{way:?}");
                    gone += 1;
                }
                // What this host's kernel does not grant can't be tried on it.
                Err(error) => assert!(error.raw_os_error().is_some(), "{way:?}: {error}"),
            }
            // It stays who it is, or as root is mapped to root: what it makes is its own.
            let made = dir.path().join(format!("{way:?}"));
            let mut command = Command::new("touch");
            command.arg(&made);
            leave_network(&mut command, way);
            if command.status().is_ok_and(|status| status.success()) {
                use std::os::unix::fs::MetadataExt as _;
                assert_eq!(made.metadata().unwrap().uid(), rustix::process::geteuid().as_raw(), "{way:?}");
            }
        }
        let granted =
            Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success());
        assert!(gone > 0 || !granted, "unshare(1) may do it, and we may not");
    }
}
