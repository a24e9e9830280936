//! The ways into the repository.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `holdfast key …`.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// List the ways in
    List,
    /// Add a way in: a passphrase (asked for at the terminal) or a key file
    Add {
        /// The new key
        #[command(flatten)]
        new: NewKey,
        /// What to call it
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
    },
    /// Remove a way in; the last one stays
    ///
    /// An old copy of the keyring, with what opened the slot, still opens what is
    /// stored now, until `holdfast key rotate --rekey`.
    Remove {
        /// The slot's id, the beginning of it, or its label
        slot: String,
    },
    /// Make new keys for all that is written from here on
    ///
    /// The way in that you use now stays, and those whose keys you give; all others, and all kits made before, open
    /// nothing that is newer. Processes that have the repository open have to be started again.
    ///
    /// An old copy of the keyring, with what opened it, still opens what was written before. With --rekey all of that is
    /// sealed anew, and the old keys are gone. Nobody can use the repository meanwhile; broken off, it goes on by the
    /// same command.
    Rotate {
        /// Seal everything that is stored anew under the new keys, and forget the old ones
        #[arg(long)]
        rekey: bool,
        /// Say what --rekey would do, and change nothing
        #[arg(long, requires = "rekey")]
        dry_run: bool,
        /// File with the passphrase of another way in that stays; may be given several times
        #[arg(long, value_name = "FILE")]
        keep_passphrase_file: Vec<PathBuf>,
        /// Key file of another way in that stays; may be given several times
        #[arg(long, value_name = "FILE")]
        keep_key_file: Vec<PathBuf>,
    },
    /// Write a new recovery kit, to the terminal or to a new file
    Export {
        /// Write it to this new file, readable by you only
        #[arg(long, value_name = "FILE")]
        kit: Option<PathBuf>,
    },
}

/// A key to add.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub struct NewKey {
    /// File whose first line is the new passphrase
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Shell command whose first line of output is the new passphrase
    #[arg(long, value_name = "COMMAND")]
    pub new_passphrase_command: Option<String>,
    /// File whose whole content is the new key
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
}
