//! What is looked for in the archive.

use clap::Args;

/// `holdfast find …`.
#[derive(Args, Debug)]
pub struct Find {
    /// The server's name
    pub name: String,
    /// Only statements that change definitions
    #[arg(long)]
    pub ddl: bool,
    /// Only transactions that touch this table
    #[arg(long, value_name = "DB.TABLE")]
    pub table: Option<String>,
    /// Only transactions that changed more rows than this
    #[arg(long, value_name = "N")]
    pub rows_over: Option<u64>,
    /// Only statements like this pattern (% and _ as in SQL). Without --scan, those that the index has: definitions, accounts, statement-based changes
    #[arg(long, value_name = "PATTERN")]
    pub like: Option<String>,
    /// Read the log itself, for the original statements of row changes, too (binlog_rows_query_log_events, MariaDB: binlog_annotate_row_events)
    #[arg(long)]
    pub scan: bool,
    /// Only what this user ran. Servers log a user with few statements: what was found to have one is told. Reads the log
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Not before this time (RFC 3339 with a zone, or an age such as -10m)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Not after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,
    /// At most this many rows
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u32,
}
