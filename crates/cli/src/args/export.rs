//! `export` and `import`.

use super::Prove;
use clap::Args;
use std::path::PathBuf;

/// What to export, and where to.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["binlogs", "datadir", "tar", "sql"]))]
#[command(group = clap::ArgGroup::new("moment").args(["to", "before", "after"]).conflicts_with("binlogs"))]
#[command(group = clap::ArgGroup::new("packed").args(["tar", "sql"]))]
pub struct Export {
    /// The server's name
    pub name: String,
    /// The original binlog files, byte for byte
    #[arg(long, requires = "into")]
    pub binlogs: bool,
    /// Folder for the binlog files; it must be empty or absent
    #[arg(long, value_name = "DIR", requires = "binlogs")]
    pub into: Option<PathBuf>,
    /// Only binlog files that hold a transaction of this time or later (RFC 3339 with a zone, or an age such as -10m)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "binlogs")]
    pub since: Option<String>,
    /// Only binlog files that hold a transaction of this time or earlier
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "binlogs")]
    pub until: Option<String>,
    /// A data directory in this folder, which must be empty or absent
    #[arg(long, value_name = "DIR", requires = "moment")]
    pub datadir: Option<PathBuf>,
    /// A data directory as a tar archive in this new file; - for standard output
    #[arg(long, value_name = "FILE", requires = "moment")]
    pub tar: Option<PathBuf>,
    /// A script of SQL as mysqldump writes them, in this new file; without FILE, or with -, on standard output
    #[arg(long, value_name = "FILE", requires = "moment", num_args = 0..=1, default_missing_value = "-")]
    pub sql: Option<PathBuf>,
    /// Only this database in the script; may be given several times
    #[arg(long, value_name = "DB", requires = "sql", conflicts_with_all = ["binlogs", "datadir", "tar"])]
    pub database: Vec<String>,
    /// Only this table or view in the script, with its triggers; may be given several times
    #[arg(long, value_name = "DB.TABLE", requires = "sql", conflicts_with_all = ["binlogs", "datadir", "tar"])]
    pub table: Vec<String>,
    /// Only definitions in the script
    #[arg(long, requires = "sql", conflicts_with_all = ["binlogs", "datadir", "tar", "data_only"])]
    pub schema_only: bool,
    /// Only rows in the script
    #[arg(long, requires = "sql", conflicts_with_all = ["binlogs", "datadir", "tar"])]
    pub data_only: bool,
    /// Accounts, roles and grants in the script, too
    #[arg(long, requires = "sql", conflicts_with_all = ["binlogs", "datadir", "tar", "data_only"])]
    pub users: bool,
    /// Let the script set the GTIDs of the server that reads it; without this, they stand in a comment
    #[arg(long, requires = "sql", conflicts_with_all = ["binlogs", "datadir", "tar"])]
    pub set_gtids: bool,
    /// Compress the script with zstd
    #[arg(long, requires = "sql", conflicts_with_all = ["binlogs", "datadir", "tar"])]
    pub zstd: bool,
    /// Folder in which the server for --tar or --sql is restored, empty or absent; it is removed again. FILE.d without it
    #[arg(long, value_name = "DIR", requires = "packed")]
    pub scratch: Option<PathBuf>,
    /// latest, fastest (the newest backup as it is, without replay), backup:NAME-OR-ID (that one), a TIME, gtid:GTID, gtid-set:SET,
    /// or pos:FILE:OFFSET, as in `restore`
    #[arg(long, value_name = "TARGET")]
    pub to: Option<String>,
    /// Everything before this transaction (an ID from find, or gtid:GTID)
    #[arg(long, value_name = "ID")]
    pub before: Option<String>,
    /// Everything up to and with this transaction
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// Folder with the server programs to use
    #[arg(long, value_name = "DIR", env = "HOLDFAST_ENGINE_DIR")]
    pub engine_dir: Option<PathBuf>,
    /// How much to prove before anything is given out
    #[arg(long, value_enum, default_value_t = Prove::Standard)]
    pub prove: Prove,
}

/// What to import.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("from").required(true).args(["dump", "binlogs"]))]
pub struct Import {
    /// The name of the server that the dump or the files are of
    pub name: String,
    /// The script, which may be compressed with gzip or zstd; or the folder that mydumper wrote
    pub dump: Option<PathBuf>,
    /// Binlog files of the server, or the folder that holds them: they become part of its archive
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["whole", "scratch"])]
    pub binlogs: Vec<PathBuf>,
    /// The binlog files are of this server, and of the log that is archived, although nothing shows it
    #[arg(long, requires = "binlogs", conflicts_with = "dump")]
    pub vouch: bool,
    /// Check the binlog files and say what an import of them does; write nothing
    #[arg(long, requires = "binlogs", conflicts_with = "dump")]
    pub dry_run: bool,
    /// The dump is of the whole server, at the position that it names
    #[arg(long)]
    pub whole: bool,
    /// A note kept with the backup
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Folder with the server programs to use
    #[arg(long, value_name = "DIR", env = "HOLDFAST_ENGINE_DIR")]
    pub engine_dir: Option<PathBuf>,
    /// Folder to load the dump in, empty or absent; it is removed again. One in TMPDIR or /var/tmp without it
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn an_export_is_of_one_thing_and_a_data_directory_of_one_moment() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        assert!(parse("holdfast export shop --binlogs --into d --since -1h").is_ok());
        assert!(parse("holdfast export shop --datadir d --before gtid:x").is_ok());
        assert!(parse("holdfast export shop --tar - --to latest --scratch s").is_ok());
        assert!(parse("holdfast export shop --to latest --scratch s --users --sql").is_ok());
        for wrong in [
            "holdfast export shop",
            "holdfast export shop --into d",
            "holdfast export shop --binlogs",
            "holdfast export shop --binlogs --into d --to latest",
            "holdfast export shop --datadir d",
            "holdfast export shop --datadir d --to latest --after x",
            "holdfast export shop --datadir d --tar f --to latest",
            "holdfast export shop --datadir d --to latest --since -1h",
            "holdfast export shop --sql f",
            "holdfast export shop --sql f --to latest --tar g",
            "holdfast export shop --datadir d --to latest --table a.b",
            "holdfast export shop --sql f --to latest --schema-only --data-only",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_import_is_of_a_dump_or_of_binlog_files() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        for right in [
            "holdfast import shop d.sql --whole --scratch s --note n",
            "holdfast import shop --binlogs folder --dry-run",
            "holdfast import shop --binlogs binlog.000001 binlog.000002 --vouch",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "holdfast import shop",
            "holdfast import shop d.sql --binlogs folder",
            "holdfast import shop --binlogs folder --whole",
            "holdfast import shop --binlogs folder --scratch s",
            "holdfast import shop d.sql --vouch",
            "holdfast import shop d.sql --dry-run",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
