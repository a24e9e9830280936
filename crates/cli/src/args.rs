//! The command line: names, flags and help.

mod approvals;
mod backup;
mod drill;
mod export;
mod find;
mod fsck;
mod keep;
mod key;
mod report;
mod restore;
mod server;
mod undo;

pub use approvals::ApprovalVerb;
pub use backup::Backup;
pub use drill::Drill;
pub use export::{Export, Import};
pub use find::Find;
pub use fsck::FsckArgs;
pub use keep::{Expire, Prune};
pub use key::{KeyVerb, NewKey};
pub use report::ReportVerb;
pub use restore::{Mode, Prove, Restore, RestoreCommand, RestoreVerb};
pub use server::{ServerAdd, ServerVerb, TlsArg};
pub use undo::{Diff, On, Undo};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Backups of MySQL and MariaDB that restore to any moment, with proof.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,

    /// Where and how.
    #[command(flatten)]
    pub common: Common,
}

/// Options that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The repository's folder.
    #[arg(long, short = 'r', global = true, env = "HOLDFAST_REPO", value_name = "DIR")]
    pub repo: Option<PathBuf>,

    /// File whose first line is the repository's passphrase.
    #[arg(long, global = true, env = "HOLDFAST_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Shell command whose first line of output is the passphrase.
    #[arg(long, global = true, env = "HOLDFAST_PASSPHRASE_COMMAND", value_name = "COMMAND")]
    pub passphrase_command: Option<String>,

    /// File whose whole content is the key, in place of a passphrase.
    #[arg(long, global = true, env = "HOLDFAST_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// The recovery kit, in place of a passphrase; wins over --passphrase-file.
    #[arg(long, global = true, value_name = "FILE")]
    pub recovery_kit: Option<PathBuf>,

    /// The socket of holdfastd: status, backup, drill, jobs, alerts, approvals, check, forget,
    /// lock, hold, unhold, and what locks or removes a server ask it in place of the repository.
    #[arg(long, global = true, env = "HOLDFAST_SOCKET", value_name = "SOCKET")]
    pub daemon: Option<PathBuf>,

    /// File whose first line is a token of the daemon: who you are, where two persons have to agree.
    #[arg(long, global = true, env = "HOLDFAST_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// One JSON document on standard output; errors as JSON on standard error.
    #[arg(long, global = true)]
    pub json: bool,

    /// No progress.
    #[arg(long, short = 'q', global = true)]
    pub quiet: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, for as long as the program runs")]
pub enum Verb {
    /// Make a repository and its keys
    ///
    /// The recovery kit opens the repository without the passphrase. It goes to the terminal or to --kit FILE,
    /// never into a pipe.
    Init {
        /// Folder to make the repository in; it must be empty or absent
        #[arg(value_name = "REPO")]
        at: Option<PathBuf>,
        /// Write the recovery kit to this new file, readable by you only
        #[arg(long, value_name = "FILE")]
        kit: Option<PathBuf>,
    },

    /// Say which servers are protected
    #[command(subcommand)]
    Server(ServerVerb),

    /// Say what a server lacks for protection, with the exact line that mends it
    Doctor {
        /// The server's name
        name: String,
    },

    /// Take a backup now
    ///
    /// It is kept as long as the policy says, and with --keep-for or --hold longer.
    Backup(Box<Backup>),

    /// Follow a server's binlog in the foreground until SIGTERM or SIGINT
    ///
    /// Everything is durable here within a second of its commit.
    Archive {
        /// The server's name
        name: String,
        /// Let the server's commits wait until they are durable here, so that none can be lost; `holdfast doctor` says
        /// what the server needs for it
        #[arg(long)]
        semi_sync: bool,
    },

    /// List backups
    List {
        /// Only this server's
        name: Option<String>,
    },

    /// Say, for each server, what can be restored now, and how much there is to rely on; of one server, why
    Status {
        /// Only this server, with the parts of its trust figure
        name: Option<String>,
    },

    /// Show which stretches of time can be restored, and the holes between them
    Timeline {
        /// The server's name
        name: String,
    },

    /// Find statements and transactions in the archive
    Find(Find),

    /// Print a transaction row by row
    ///
    /// Columns have their names where the source logs them (binlog_row_metadata=FULL), and @1, @2, ... else. Long values
    /// are cut.
    Show {
        /// The server's name
        name: String,
        /// The transaction: an ID from find, or gtid:GTID
        #[arg(value_name = "ID")]
        id: String,
        /// At most this many rows
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: u32,
    },

    /// Print the SQL that undoes whole transactions, or apply it
    ///
    /// Inserted rows are deleted, deleted ones inserted, changed columns set back, the last change first, in one
    /// transaction. Column names and keys are asked of a server that has the tables: the protected one, or the one named
    /// by --host or --socket.
    Undo(Box<Undo>),

    /// Compare a table at two moments, out of the archived log alone
    ///
    /// Of each row what it was at first and is at last: what changed back is no difference. Only what the log has row by
    /// row counts, so not what foreign keys did by themselves before MySQL 9.6 and on MariaDB. Where the log has no names
    /// and keys (binlog_row_metadata=FULL), a server that has the table is asked for them.
    Diff(Box<Diff>),

    /// Restore a server to any moment into a new folder, and prove it
    #[command(args_conflicts_with_subcommands = true)]
    Restore(Box<RestoreCommand>),

    /// Restore a moment on a scratch server, prove it, ask your own check queries, measure it, and throw it away
    ///
    /// The report is kept in the repository. With --daemon, the daemon does it, with the queries of its configuration.
    Drill(Box<Drill>),

    /// The reports of drills and restores: list them, give them away, and check their signatures
    #[command(subcommand)]
    Report(ReportVerb),

    /// Give out what the repository holds in a form that needs nothing of ours
    ///
    /// The original binlog files (--binlogs), or any moment, restored and proved as `restore` does: a data directory on which
    /// a server of the same series starts (--datadir, --tar), or a script of SQL as mysqldump writes them (--sql).
    Export(Box<Export>),

    /// Make a dump of mysqldump, mariadb-dump, mydumper or `export --sql` a backup, or binlog files a part of the archive
    ///
    /// A script or a folder of mydumper's is loaded into a private server of the same series, which is shut down and copied. With --whole,
    /// an archived log leads on from the position that it names. Interrupted, nothing is listed.
    ///
    /// With --binlogs, files that the server left (binlog.000001 and so on) become the begin of its archive, or go on
    /// behind its end. All are read and checked before anything is written; a hole is refused.
    Import(Import),

    /// Say that a backup is not wanted any more
    ///
    /// It is gone from lists at once; its blocks go with the next `holdfast prune`, as far as no other backup needs
    /// them.
    Forget {
        /// The backup's id, the beginning of it, or its name (SERVER/NAME where servers share one)
        backup: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Change nothing
        #[arg(long)]
        dry_run: bool,
    },

    /// Forget the backups of a server that nothing says to keep
    ///
    /// The first backup of a day, week, month or year stands for it. The newest good one and the newest proved one
    /// always stay. N is 0 for all.
    Expire(Expire),

    /// Keep a backup from being forgotten before a time; a lock can be extended, never shortened
    Lock {
        /// The backup's id, the beginning of it, or its name (SERVER/NAME where servers share one)
        backup: String,
        /// Until when (RFC 3339 with a zone)
        #[arg(long, value_name = "TIME")]
        until: String,
    },

    /// Keep a backup until it is released, whatever the policy says
    Hold {
        /// The backup's id, the beginning of it, or its name (SERVER/NAME where servers share one)
        backup: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },

    /// Release a backup that is held: the policy, its own date and its lock say from here on how long it stays
    Unhold {
        /// The backup's id, the beginning of it, or its name (SERVER/NAME where servers share one)
        backup: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },

    /// Remove what no wanted backup needs, and compact what is half empty; backups may run meanwhile
    Prune(Prune),

    /// The ways into the repository
    #[command(subcommand)]
    Key(KeyVerb),

    /// Check or repair the repository with the second reader (the same as holdfast-fsck)
    Fsck(FsckArgs),

    /// Read the repository again where the last scrub stopped, and heal what rotted from parity or from another copy
    Scrub {
        /// MiB a second at most
        #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        rate: Option<u64>,
        /// Stop after this time: 30s, 15m, 8h; without it, at the end of the round
        #[arg(long = "for", value_name = "DURATION", value_parser = time_span)]
        time_max: Option<std::time::Duration>,
    },

    /// Show the daemon's jobs, or one of them
    Jobs {
        /// Its number
        id: Option<u64>,
        /// Stop it, or take it out of the queue
        #[arg(long, requires = "id")]
        cancel: bool,
    },

    /// Show the daemon's open alerts, or send everybody who is told of them a test message
    Alerts {
        /// Send a test message to each webhook and each recipient of mail, and say how it fared
        #[arg(long)]
        test: bool,
    },

    /// Show what waits for a second person, and decide about it
    ///
    /// Where the daemon's configuration says so, what takes something away is asked for by one administrator and done when
    /// another one agrees. Both show their tokens (--token-file).
    #[command(subcommand)]
    Approvals(ApprovalVerb),

    /// Say whether every server is protected, one line each
    ///
    /// Exit status 0: all are; 3: something wants a look; 1: one is not.
    Check {
        /// Only this server
        name: Option<String>,
        /// One line for Nagios and its kin, with their exit statuses (0, 1, 2, 3)
        #[arg(long)]
        nagios: bool,
    },

    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },

    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
}

/// `90`, `30s`, `15m`, `8h`, `2d`.
fn time_span(text: &str) -> std::result::Result<std::time::Duration, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("a number and s, m, h or d are expected, as in 30m".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| "a number is expected first, as in 30m".to_owned())?;
    let all = count.checked_mul(seconds).ok_or("this is longer than anybody waits")?;
    Ok(std::time::Duration::from_secs(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
