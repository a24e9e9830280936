//! A private `mysqld` or `mariadbd` on a folder.
//!
//! Owns finding the server's programs, starting one on a folder with a one-time account
//! that no user of the source knows, logging in, stopping it, and facts about versions.
//! Refuses to know the repository. Start reading at `server.rs`.

pub mod account;
pub mod command;
pub mod compat;
pub mod error;
pub mod in_use;
pub mod initialize;
pub mod orphan;
pub mod prepare;
pub mod programs;
pub mod recovered;
pub mod server;
mod temporary;

pub use compat::Fit;
pub use error::{Error, Result};
pub use initialize::initialize;
pub use orphan::{kill_server_on, stop_server_on};
pub use prepare::{Prepared, prepare_mariadb, prepare_mariadb_while};
pub use programs::Programs;
pub use recovered::RecoveredCoordinates;
pub use server::{Listen, PrivateServer, StartOptions};
