//! Restores: plan, lay out, start, replay, prove.
//!
//! Owns the plan that can be printed before anything is touched, its execution, and the
//! proof at its end. Refuses to know schedules, and how a base or a log is stored: it sees
//! them through the traits of `seam.rs`. Start reading at `plan.rs`; then `run.rs`.

pub mod catalog;
pub mod cell;
pub mod config;
mod elsewhere;
pub mod error;
pub mod fence;
pub mod finish;
pub mod in_place;
pub mod layout;
pub mod marker;
pub mod origin;
pub mod outlook;
pub mod plan;
pub mod progress;
pub mod proof;
pub mod queries;
pub mod range;
pub mod recovered;
pub mod replica;
pub mod report;
pub mod run;
pub mod sample;
pub mod scope;
pub mod seam;
pub mod tally;
pub mod tuning;

pub use error::{Error, Result};
pub use layout::Over;
pub use plan::{Plan, plan};
pub use report::{Prove, Report};
pub use run::{Request, Restored, Step, Watch, run, source_settings};
pub use scope::{Part, Scope, Wanted, narrow};
pub use seam::{Base, Border, Gap, LaidOut, LayingOut, Log, LogSize, Place, Side, Target, TransactionFacts};
