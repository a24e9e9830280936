//! `restore`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `holdfast restore …` and `holdfast restore finish DIR`.
#[derive(Args, Debug)]
pub struct RestoreCommand {
    /// `finish`, or nothing.
    #[command(subcommand)]
    pub after: Option<RestoreVerb>,
    /// The restore itself.
    #[command(flatten)]
    pub restore: Option<Restore>,
}

/// What can be done with a finished restore.
#[derive(Debug, Subcommand)]
pub enum RestoreVerb {
    /// Hand a restored folder over: the next start of its server is writable, with events on
    Finish {
        /// The restored folder
        dir: PathBuf,
        /// Folder with the server programs to use
        #[arg(long, value_name = "DIR", env = "HOLDFAST_ENGINE_DIR")]
        engine_dir: Option<PathBuf>,
    },
}

/// Where to restore to, and into what.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("target").required(true).args(["to", "before", "after", "undo"]))]
#[command(group = clap::ArgGroup::new("place").required(true).args(["into", "into_server", "in_place", "undo"]))]
#[command(group = clap::ArgGroup::new("over").multiple(true).args(["delta", "in_place", "undo"]))]
#[command(group = clap::ArgGroup::new("own").multiple(true).args(["in_place", "undo"]))]
#[command(group = clap::ArgGroup::new("some").multiple(true).args(["table", "database"]))]
pub struct Restore {
    /// The server's name
    pub name: String,
    /// latest, fastest, backup:NAME-OR-ID (that one as it is, without replay), a TIME (RFC 3339 with a zone), gtid:GTID,
    /// gtid-set:SET, or pos:FILE:OFFSET; with @N behind it in life N of the log, as `find` prints it after a reset of the server
    ///
    /// gtid-set: is the state with exactly these transactions: gtid-set:UUID:1-5 as @@gtid_executed shows it (MySQL), or
    /// gtid-set:0-1-100,1-2-7 as @@gtid_binlog_pos does (MariaDB).
    #[arg(long, value_name = "TARGET")]
    pub to: Option<String>,
    /// Everything before this transaction (an ID from find, or gtid:GTID)
    #[arg(long, value_name = "ID")]
    pub before: Option<String>,
    /// Everything up to and with this transaction
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// Only this table (may be given again); DB.T:NEW or DB.T:DB2.NEW gives it another name at the end
    ///
    /// Only the files that it needs are read, and only the log events that touch it are replayed. Tables that its foreign
    /// keys refer to come along. The result is a server that has these tables and no others, proved.
    #[arg(long, value_name = "DB.T[:NEW]", conflicts_with = "delta")]
    pub table: Vec<String>,
    /// Only the tables of this database (may be given again, and beside --table)
    #[arg(long, value_name = "DB", conflicts_with = "delta")]
    pub database: Vec<String>,
    /// Folder to restore into; it must be empty or absent, or hold an interrupted restore of the same (but see --delta)
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Copy the tables into a running server, beside those that it has: HOST, HOST:PORT or the path of a socket; without
    /// it, into the protected server
    ///
    /// They go into a schema of their own, such as shop__at_20261121_140307, which must not exist. Then each table is
    /// compared with what has its name now. Interrupted, the schema stays, marked as unfinished: the same command clears
    /// it and begins anew.
    #[arg(long, value_name = "WHERE", num_args = 0..=1, default_missing_value = "", requires = "some",
          conflicts_with_all = ["going_on", "delta", "start"])]
    pub into_server: Option<String>,
    /// With --into-server: the schema's name, in place of one of database and moment
    #[arg(long, value_name = "NAME", requires = "into_server", conflicts_with = "into")]
    pub schema: Option<String>,
    /// With --into-server: account to log in with
    #[arg(long, requires = "into_server", conflicts_with = "into")]
    pub user: Option<String>,
    /// With --into-server: file whose first line is the account's password
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// With --into-server: write a script into this new file that puts back rows that are gone or have other values
    #[arg(long, value_name = "FILE", requires = "into_server", conflicts_with = "into")]
    pub copy_back: Option<PathBuf>,
    /// With --into-server: print that script on standard output, and everything else on standard error
    #[arg(long, requires = "into_server", conflicts_with_all = ["into", "dry_run"])]
    pub sql: bool,
    /// The script deletes rows that are new, too
    #[arg(long, requires = "into_server", conflicts_with = "into")]
    pub delete_new: bool,
    /// With --into-server: keep the copy out of the server's binary log, and so off its replicas
    #[arg(long, requires = "into_server", conflicts_with = "into")]
    pub no_binlog: bool,
    /// With --into-server: folder in which the tables are restored first, empty or absent; it is removed again. One in
    /// TMPDIR or /var/tmp without it
    #[arg(long, value_name = "DIR", requires = "into_server", conflicts_with = "into")]
    pub scratch: Option<PathBuf>,
    /// Restore over the server's own data directory, on its host: the one that the newest backup tells of, or DIR
    ///
    /// The server must be stopped (or --stop-command stops it). What is there is saved first, as a backup in the same
    /// repository that only `forget` removes; --undo puts it back. Then only what differs is written. TLS keys (*.pem) and
    /// mysqld-auto.cnf stay. A command that was killed is given again, and goes on.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "",
          conflicts_with_all = ["going_on", "delta", "some"])]
    pub in_place: Option<String>,
    /// Put back what was in the data directory before the last --in-place: in the one that the newest backup tells of, or DIR
    ///
    /// If the server was handed over since, what is there now is saved first, so that an undo can be undone.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "",
          conflicts_with_all = ["going_on", "delta", "some", "start", "dry_run"])]
    pub undo: Option<String>,
    /// With --undo: lay this backup back, which `list` shows with its note, in place of the one that the folder's mark names
    ///
    /// For a folder that is lost (name it: --undo DIR), or for what was there before an earlier restore.
    #[arg(long, value_name = "ID", requires = "undo", conflicts_with_all = ["to", "before", "after"])]
    pub saved: Option<String>,
    /// With --undo: what is in the folder now is lost, in place of being saved first; needs --confirm
    ///
    /// For a repository without room for it, or where nothing that is there is wanted.
    #[arg(long, requires = "undo", conflicts_with_all = ["to", "before", "after"])]
    pub no_save: bool,
    /// With --in-place and --undo: run by the shell where a server uses the data directory, and waited for
    #[arg(long, value_name = "COMMAND", env = "HOLDFAST_STOP_COMMAND", requires = "own")]
    pub stop_command: Option<String>,
    /// The restored server carries on replicating from this one, from where the restore led to: HOST or HOST:PORT
    ///
    /// By GTIDs, or by file and position where the source has none. It begins when it is started after `restore finish`.
    /// The source must still have what it logged since.
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with_all = ["into_server", "undo", "some"])]
    pub as_replica_of: Option<String>,
    /// With --as-replica-of: the account; the one that the protected server is known by without it
    #[arg(long, value_name = "USER", requires = "as_replica_of")]
    pub replica_user: Option<String>,
    /// With --as-replica-of: file whose first line is the account's password
    #[arg(long, value_name = "FILE", requires = "replica_user")]
    pub replica_password_file: Option<PathBuf>,
    /// Bring the source's settings back, its time zone included, as the file holdfast-source.cnf of the folder
    ///
    /// What was not the server's default is set; places, identities and plugins of the source's host stand in comments,
    /// with the reason. The restored server is started with it, and what it then says of itself is compared.
    #[arg(long, conflicts_with_all = ["into_server", "undo"])]
    pub with_config: bool,
    /// Set this in the restored server's option file, whatever the source had (may be given again)
    #[arg(long, value_name = "NAME=VALUE", conflicts_with_all = ["into_server", "undo"])]
    pub set: Vec<String>,
    /// Roll the restore that is in the folder forward to a later target, from where it stands; an interrupted
    /// restore goes on by the same command without this
    #[arg(long = "continue")]
    pub going_on: bool,
    /// Restore over what is in the folder: blocks that are right stay, others are rewritten, what the backup does not
    /// have is removed
    ///
    /// The folder must hold a restore that was not handed over, or be confirmed, and no server may use it. With
    /// --dry-run, says what would be kept, rewritten and removed. An interrupted one goes on by the same command.
    #[arg(long, conflicts_with = "going_on")]
    pub delta: bool,
    /// The folder's own name, typed again, for a --delta over a folder that no restore made or that was handed over:
    /// everything in it that the backup does not have is lost. With --in-place, where nothing says that the folder is this
    /// server's. With --undo --no-save
    #[arg(long, value_name = "NAME", requires = "over")]
    pub confirm: Option<String>,
    /// Folder with the server programs to use
    #[arg(long, value_name = "DIR", env = "HOLDFAST_ENGINE_DIR")]
    pub engine_dir: Option<PathBuf>,
    /// Leave the restored server running (read-only until `restore finish`)
    #[arg(long)]
    pub start: bool,
    /// Port for --start; a free one on 127.0.0.1 otherwise
    #[arg(long, requires = "start")]
    pub port: Option<u16>,
    /// How much to prove at the end
    #[arg(long, value_enum, default_value_t = Prove::Standard)]
    pub prove: Prove,
    /// How to replay the log
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `--mode`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mode {
    /// One transaction after the other, on one connection
    Serial,
    /// In order within each table, tables side by side
    Ordered,
    /// Only what came of each row, on many connections; in order where that would not be exact
    Net,
    /// net, or serial where there is little to do
    Auto,
}

/// `--prove`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Prove {
    /// Coordinates, identities, every table opens
    Quick,
    /// With row counts, a sample of rows read back, and CHECK TABLE within a time budget
    Standard,
    /// Everything, whatever it takes
    Full,
}

#[cfg(test)]
mod tests {
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn a_restore_needs_exactly_one_target() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        assert!(parse("holdfast restore shop --into d").is_err());
        assert!(parse("holdfast restore shop --to latest --before x --into d").is_err());
        assert!(parse("holdfast restore shop --before drop:orders --into d").is_ok());
        assert!(parse("holdfast restore finish d").is_ok());
        assert!(parse("holdfast restore shop --continue --to latest --into d").is_ok());
    }
    #[test]
    fn in_place_needs_a_moment_and_undo_needs_none() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        for right in [
            "holdfast restore shop --to latest --in-place",
            "holdfast restore shop --to latest --in-place /var/lib/mysql --confirm mysql --stop-command x",
            "holdfast restore shop --to latest --in-place --dry-run",
            "holdfast restore shop --undo",
            "holdfast restore shop --undo /var/lib/mysql",
            "holdfast restore shop --undo --no-save --confirm mysql",
            "holdfast restore shop --undo /var/lib/mysql --saved 1a2b",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "holdfast restore shop --in-place",
            "holdfast restore shop --to latest --undo",
            "holdfast restore shop --to latest --in-place --into d",
            "holdfast restore shop --to latest --in-place --table a.b",
            "holdfast restore shop --to latest --in-place --continue",
            "holdfast restore shop --to latest --into d --stop-command x",
            "holdfast restore shop --undo --dry-run",
            "holdfast restore shop --to latest --in-place --no-save",
            // What is required is not asked for where it conflicts with what is there.
            "holdfast restore shop --saved 1a2b",
            "holdfast restore shop --to latest --in-place --saved 1a2b",
            "holdfast restore shop --before x --into d --saved 1a2b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
    #[test]
    fn tables_go_into_a_folder_or_into_a_running_server() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        for right in [
            "holdfast restore shop --to latest --table a.b --into-server",
            "holdfast restore shop --into-server db2:3307 --table a.b --to latest --user u --password-file p --copy-back f",
            "holdfast restore shop --to latest --database a --into-server /run/s --schema x --sql --delete-new --no-binlog",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "holdfast restore shop --to latest",
            "holdfast restore shop --to latest --into-server",
            "holdfast restore shop --to latest --table a.b --into d --into-server",
            "holdfast restore shop --to latest --table a.b --into d --schema x",
            "holdfast restore shop --to latest --table a.b --into d --user u",
            "holdfast restore shop --to latest --table a.b --into-server --start",
            "holdfast restore shop --to latest --table a.b --into-server --continue",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
