//! `drill`.

use super::Prove;
use clap::Args;
use std::path::PathBuf;

/// `holdfast drill …`.
#[derive(Args, Debug)]
pub struct Drill {
    /// The server's name
    pub name: String,
    /// The moment: random (any that can be restored), latest, fastest, backup:NAME-OR-ID, a TIME (RFC 3339 with a zone), gtid:GTID,
    /// gtid-set:SET, or pos:FILE:OFFSET
    #[arg(long, value_name = "MOMENT", default_value = "random")]
    pub at: String,
    /// A query that the restored server is asked, with what is expected in a comment (may be given again):
    /// "SELECT COUNT(*) FROM shop.orders -- expect: >= 1000"
    ///
    /// Expected may be a value (= 'open', != NULL, < 10) of a query that gives one row, or a number of rows (rows = 0,
    /// rows >= 3). Without an expectation, the query has to run. It is asked of a server that listens on no network and
    /// is read only, as an account that may only read; NOW() is the moment that was restored. One that fails fails the drill.
    #[arg(long, value_name = "SQL")]
    pub check_query: Vec<String>,
    /// A file with such queries, and semicolons behind them; "-- name: TEXT" names the one that follows
    #[arg(long, value_name = "FILE")]
    pub check_file: Vec<PathBuf>,
    /// Longest time of each of these queries: 30s, 15m; 60s without it
    #[arg(long, value_name = "DURATION", value_parser = super::time_span)]
    pub query_time: Option<std::time::Duration>,
    /// Folder to restore in, empty or absent; it is removed again. One in TMPDIR or /var/tmp without it
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Folder with the server programs to use
    #[arg(long, value_name = "DIR", env = "HOLDFAST_ENGINE_DIR")]
    pub engine_dir: Option<PathBuf>,
    /// How much to prove; standard without it
    #[arg(long, value_enum)]
    pub prove: Option<Prove>,
}
