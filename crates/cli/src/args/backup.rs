//! `holdfast backup …`.

use clap::Args;
use holdfast_appliance::policy::Span;

/// `holdfast backup …`.
#[derive(Args, Debug)]
pub struct Backup {
    /// The server's name
    #[arg(value_name = "NAME")]
    pub server: String,
    /// A note kept with the backup
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// What to call the backup: stands for its id, and no other backup of the server has it
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Keep it for so long at least (such as 30d), whatever the policy says
    #[arg(long, value_name = "AGE")]
    pub keep_for: Option<Span>,
    /// Keep it until `holdfast unhold` releases it, whatever the policy says
    #[arg(long)]
    pub hold: bool,
    /// Copy a replica of the server in place of it; the first of these that is fit (MySQL with GTIDs)
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub from: Vec<String>,
    /// How far behind such a replica may be (such as 30s)
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "from")]
    pub max_lag: Span,
    /// Copy the server itself where no replica of --from is fit, and say why
    #[arg(long, requires = "from")]
    pub or_source: bool,
    /// Connections that copy in parallel (MySQL)
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub jobs: u8,
    /// Read every file of a folder, also those whose size, inode and times are as in the last backup
    #[arg(long)]
    pub force: bool,
    /// How much of what is written is decrypted and decoded again before the backup counts: all, or one block of 16
    #[arg(long, value_name = "HOW_MUCH", default_value = "full", value_parser = ["full", "sample"])]
    pub verify_write: String,
}
