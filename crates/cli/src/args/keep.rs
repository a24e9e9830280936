//! What is kept, and what is not wanted any more.

use clap::Args;

/// `holdfast expire …`.
#[derive(Args, Debug)]
pub struct Expire {
    /// The server's name
    pub name: String,
    /// The newest N
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// One of each of the last N days that have one
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// One of each of the last N weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// One of each of the last N months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// One of each of the last N years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// Whatever is needed to restore any moment of the last AGE (such as 7d) and of the day before it
    #[arg(long, value_name = "AGE")]
    pub keep_within: Option<holdfast_appliance::policy::Span>,
    /// Print what would be forgotten and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `holdfast prune …`.
#[derive(Args, Debug)]
pub struct Prune {
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Compact until at most this much of what is stored is dead, percent
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub max_dead: u8,
    /// Backups forgotten less than this ago keep their blocks (such as 1d)
    #[arg(long, value_name = "AGE", default_value = "0")]
    pub grace: holdfast_appliance::policy::Span,
}
