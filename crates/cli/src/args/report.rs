//! `report`.

use clap::Subcommand;
use std::path::PathBuf;

/// `holdfast report …`.
#[derive(Debug, Subcommand)]
pub enum ReportVerb {
    /// List the reports of drills and restores that are kept, with the state of their signatures
    List {
        /// Only this server's
        name: Option<String>,
    },
    /// Print one as it was signed, or write it to a file to give away
    Show {
        /// Its number, from `report list`
        number: u64,
        /// Write it to this new file
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Say whether a report is what the repository signed; with --public-key, no repository is needed
    Verify {
        /// The report, as `report show --out` wrote it; without it, all that the repository keeps are looked at
        #[arg(value_name = "FILE")]
        report: Option<PathBuf>,
        /// File with the public key, as `report key --out` wrote it, in place of the repository's own
        #[arg(long, value_name = "FILE", requires = "report")]
        public_key: Option<PathBuf>,
    },
    /// Print the public keys of what is signed here, the newest last
    Key {
        /// Write them to this new file
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}
