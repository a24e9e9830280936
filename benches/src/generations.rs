//! Many generations of one folder: what they cost in bytes, and what they leave to a restore.
//!
//! `tables` is the folder and its churn, `aged` a repository that is driven through the store's
//! own calls, `rebase` a model of the rules by which a block could be stored whole again, `rival`
//! the same generations through the programs of Holdfast and rustic. The program `holdfast-bench-generations` runs them; `tools/bench generations` calls it.

pub mod aged;
pub mod rebase;
pub mod rival;
pub mod tables;

/// An error of any of them, for people.
pub type Failed = Box<dyn std::error::Error>;
