//! Where the key comes from: a file, the recovery kit, or a question at the terminal.

use crate::args::Common;
use holdfast_appliance::catalogue::Key;
use holdfast_appliance::error::{Error, Result};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use zeroize::Zeroizing;

/// The key that the user named; asked for at the terminal when he named none.
///
/// # Errors
/// `Usage` when there is no terminal to ask at.
pub fn key(common: &Common) -> Result<Key> {
    named(common).map_or_else(|| Ok(Key::Passphrase(ask("Passphrase of the repository: ")?)), Ok)
}

/// The key of a new repository: a passphrase that is asked for is asked for twice.
///
/// # Errors
/// `Usage` when there is no terminal, or the two differ.
pub fn new_key(common: &Common) -> Result<Key> {
    if let Some(key) = named(common) {
        return Ok(key);
    }
    new_passphrase("Passphrase for the new repository: ")
}

/// A new passphrase, asked for twice.
///
/// # Errors
/// `Usage` when there is no terminal, or the two differ.
pub fn new_passphrase(question: &str) -> Result<Key> {
    let first = ask(question)?;
    if first.is_empty() {
        return Err(Error::usage("The passphrase is empty."));
    }
    if *ask("The same again: ")? != *first {
        return Err(Error::usage("The two passphrases differ.").with_next("run the command again"));
    }
    Ok(Key::Passphrase(first))
}

fn named(common: &Common) -> Option<Key> {
    if let Some(kit) = &common.recovery_kit {
        return Some(Key::RecoveryKit(kit.clone()));
    }
    if let Some(file) = &common.key_file {
        return Some(Key::KeyFile(file.clone()));
    }
    if let Some(file) = &common.passphrase_file {
        return Some(Key::PassphraseFile(file.clone()));
    }
    common.passphrase_command.clone().map(Key::PassphraseCommand)
}

/// Asks at the terminal, without showing what is typed.
fn ask(question: &str) -> Result<Zeroizing<String>> {
    let no_terminal = || {
        Error::usage("There is no passphrase, and no terminal to ask for it.")
            .with_next("use --passphrase-file FILE, or set HOLDFAST_PASSPHRASE_FILE")
    };
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|_| no_terminal())?;
    let before = tcgetattr(&terminal).map_err(|_| no_terminal())?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    let mut out = &terminal;
    let mut answer = Zeroizing::new(String::new());
    tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|_| no_terminal())?;
    let asked = out
        .write_all(question.as_bytes())
        .and_then(|()| BufReader::new(&terminal).read_line(&mut answer))
        .and_then(|_| out.write_all(b"\n"));
    let restored = tcsetattr(&terminal, OptionalActions::Flush, &before);
    asked.map_err(|error| Error::usage(format!("The terminal gave no answer: {error}.")))?;
    restored.map_err(|error| Error::failed(format!("The terminal can't be put back: {error}.")))?;
    let line_end = answer.trim_end_matches(['\n', '\r']).len();
    answer.truncate(line_end);
    Ok(answer)
}
