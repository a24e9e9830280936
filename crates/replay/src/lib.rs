//! Replay of archived events onto a private server.
//!
//! Owns the scan that refuses what can't be replayed, the serial applier and the replay of net
//! change with their checkpoint, and the GTID state that a replayed server ends with. Refuses to know where
//! events come from ([`log::Log`]) and how the server was started. Start reading at `net.rs`, then
//! `serial.rs`.
//!
//! Order of use: [`scan::scan`] over the whole range before the first write, then
//! [`run`] (or [`serial::replay`]), which may be killed at any moment and called again, then [`finish::finish`].

mod ahead;
mod appliers;
mod batch;
mod before;
pub mod checkpoint;
mod ddl;
mod error;
pub mod finish;
mod history;
pub mod log;
pub mod net;
pub mod outlook;
pub mod scan;
pub mod serial;
pub mod session;
mod sql;
mod survey;

pub use error::Error;
pub use log::{EventPlace, Log, LogReader};
pub use net::{Mode, run};
pub use survey::RowShape;
