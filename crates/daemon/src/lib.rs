//! The daemon: keeps what the policies promise for every server, by itself, and says so.
//!
//! Owns time (what is begun when), the queue of jobs, one archive stream a server, the API, the page, the metrics and
//! the audit log. Refuses to know how a backup, a restore or an expiry is done: it calls the same functions of
//! `holdfast-appliance` as the command line. What it promises is derived from the repository; its own state
//! (`state.rs`) holds only what a repository can't know: jobs that were accepted, tries that failed, who is paused.
//!
//! Start reading at `daemon.rs`, then `scheduler.rs` and `runner.rs`.

pub mod alerts;
pub mod approvals;
pub mod audit;
pub mod board;
pub mod config;
pub mod daemon;
pub mod drills;
pub mod events;
pub mod expiry;
pub mod files;
pub mod history;
pub mod http;
pub mod jobs;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod prune;
pub mod queue;
pub mod reload;
pub mod report;
mod runner;
mod scheduler;
pub mod state;
mod streams;
pub mod tokens;
