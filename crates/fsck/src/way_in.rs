//! How a way into the repository is named: an option, else a variable of the environment, the same ones that `holdfast`
//! has; and what is read there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast_io::RealDisk;

use crate::error::{Error, Result};
use crate::kit::Kit;
use crate::unlock::Secret;

/// Longest file with a secret: a key file is a few dozen bytes, a kit of many keys some hundred KiB.
const SECRET_BYTES_MAX: u64 = 1024 * 1024;

/// A way in, as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WayIn {
    /// A file with a recovery kit.
    Kit(PathBuf),
    /// A file whose whole content is the key.
    KeyFile(PathBuf),
    /// A file whose first line is the passphrase.
    PassphraseFile(PathBuf),
    /// A shell command whose first line of output is the passphrase.
    PassphraseCommand(OsString),
}

impl WayIn {
    /// What the environment names, `variable` giving the value of each: HOLDFAST_KEY_FILE before HOLDFAST_PASSPHRASE_FILE before
    /// HOLDFAST_PASSPHRASE_COMMAND. An empty one names nothing.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let key_file = set("HOLDFAST_KEY_FILE").map(|path| Self::KeyFile(path.into()));
        let passphrase = || set("HOLDFAST_PASSPHRASE_FILE").map(|path| Self::PassphraseFile(path.into()));
        let command = || set("HOLDFAST_PASSPHRASE_COMMAND").map(Self::PassphraseCommand);
        key_file.or_else(passphrase).or_else(command)
    }

    /// Reads the secret.
    pub(crate) fn read(&self) -> Result<Secret> {
        match self {
            Self::KeyFile(path) => Ok(Secret::KeyFile(read_small(path)?)),
            Self::Kit(path) => {
                let text = String::from_utf8_lossy(&read_small(path)?).into_owned();
                let bad = |why| Error::Usage(format!("{} is no recovery kit: {why}", path.display()));
                Ok(Secret::Kit(Box::new(Kit::read(&text).map_err(bad)?)))
            }
            Self::PassphraseFile(path) => first_line(&read_small(path)?, &path.display().to_string()),
            Self::PassphraseCommand(command) => {
                let failed = |why: String| {
                    Error::Usage(format!(
                        "the passphrase command gave no passphrase: {why}; try it: {}",
                        command.display()
                    ))
                };
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(command).stdin(Stdio::inherit()).stderr(Stdio::inherit());
                let output = shell.output().map_err(|e| failed(e.to_string()))?;
                if !output.status.success() {
                    return Err(failed(output.status.to_string()));
                }
                first_line(&output.stdout, "the output of the passphrase command")
            }
        }
    }
}

fn first_line(content: &[u8], of: &str) -> Result<Secret> {
    let line = content.split(|b| *b == b'\n').next().unwrap_or(&[]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Error::Usage(format!("{of} has no passphrase in its first line; write it there")));
    }
    Ok(Secret::Passphrase(line.to_vec()))
}

fn read_small(path: &Path) -> Result<Vec<u8>> {
    let read = RealDisk::read_whole(path, SECRET_BYTES_MAX);
    read.map_err(|e| Error::Usage(format!("the secret cannot be read: {e}; name a file that can")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_ways_in_that_holdfast_has() {
        let all = [
            ("HOLDFAST_KEY_FILE", WayIn::KeyFile("x".into())),
            ("HOLDFAST_PASSPHRASE_FILE", WayIn::PassphraseFile("x".into())),
            ("HOLDFAST_PASSPHRASE_COMMAND", WayIn::PassphraseCommand("x".into())),
        ];
        for (at, (_, way)) in all.iter().enumerate() {
            let set = |name: &str| all[at..].iter().any(|(n, _)| *n == name).then(|| OsString::from("x"));
            assert_eq!(WayIn::from_environment(set).as_ref(), Some(way));
        }
        assert_eq!(WayIn::from_environment(|_| Some(OsString::new())), None);
    }

    #[test]
    fn a_command_gives_its_first_line_or_says_why_not() {
        let way = |command: &str| WayIn::PassphraseCommand(command.into()).read();
        assert!(matches!(way("printf 'a b\\r\\nc'"), Ok(Secret::Passphrase(p)) if p == b"a b"));
        for (command, why) in [("exit 3", "exit status: 3"), ("true", "no passphrase")] {
            assert!(way(command).err().unwrap().to_string().contains(why));
        }
    }
}
