//! The second reader.

use clap::Args;

/// `holdfast fsck`.
#[derive(Args, Debug)]
pub struct FsckArgs {
    /// Read every byte; without it, the structure and a sample
    #[arg(long)]
    pub full: bool,
    /// Mend what can be mended
    #[arg(long, conflicts_with = "full")]
    pub repair: bool,
    /// Only make new footers where a segment's own is lost
    #[arg(long, conflicts_with_all = ["full", "repair"])]
    pub rebuild_index: bool,
    /// With --repair or --rebuild-index: print the plan, change nothing
    #[arg(long)]
    pub dry_run: bool,
}
