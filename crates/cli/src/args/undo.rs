//! `undo` and `diff`.

use clap::Args;
use std::path::PathBuf;

/// `holdfast undo …`.
#[derive(Args, Debug)]
pub struct Undo {
    /// The server's name
    pub name: String,
    /// The transactions: IDs from find, or gtid:GTID
    #[arg(long = "txn", value_name = "ID", required = true, num_args = 1..)]
    pub transactions: Vec<String>,
    /// Only the rows of this table
    #[arg(long, value_name = "DB.TABLE")]
    pub table: Option<String>,
    /// Print the SQL and change nothing, which is done without this, too
    #[arg(long, conflicts_with = "apply")]
    pub sql: bool,
    /// Undo it on the server, if every row is as the transactions left it; else list those that are not
    #[arg(long)]
    pub apply: bool,
    /// With --apply: only look whether the rows are as the transactions left them
    #[arg(long, requires = "apply")]
    pub dry_run: bool,
    /// With --apply: leave rows that changed since as they are, and undo the others
    #[arg(long, requires = "apply")]
    pub skip_conflicts: bool,
    /// With --apply: also where triggers or foreign keys change other rows
    #[arg(long, requires = "apply")]
    pub force: bool,
    /// The server that has the tables.
    #[command(flatten)]
    pub on: On,
}

/// `holdfast diff …`.
#[derive(Args, Debug)]
pub struct Diff {
    /// The server's name
    pub name: String,
    /// The table
    #[arg(long, value_name = "DB.TABLE")]
    pub table: String,
    /// From this moment: a TIME (RFC 3339 with a zone), an age such as -10m, after a transaction (an ID from find), or
    /// gtid-set:SET
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    pub from: String,
    /// To this moment: the same, or latest for the end of what is archived
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, default_value = "latest")]
    pub to: String,
    /// At most this many rows; all are counted
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u32,
    /// The server that has the table.
    #[command(flatten)]
    pub on: On,
}

/// A server other than the protected one, such as a restored copy.
#[derive(Args, Debug)]
pub struct On {
    /// Host name or address of another server than the protected one
    #[arg(long, conflicts_with = "socket", requires = "user")]
    pub host: Option<String>,
    /// TCP port
    #[arg(long, default_value_t = 3306, requires = "host")]
    pub port: u16,
    /// Unix socket, in place of host and port
    #[arg(long, value_name = "FILE", requires = "user")]
    pub socket: Option<PathBuf>,
    /// Account to log in with
    #[arg(long)]
    pub user: Option<String>,
    /// File whose first line is the account's password
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
}
