//! The test bed: private servers, the ledger workload, and the oracle beside them.
//!
//! `server` starts real servers from a template, `ledger` writes to them and keeps an outside
//! record of what was acknowledged when, `state` compares two servers row by row, `replica` is
//! the second oracle (the server's own applier stopped at a GTID), `replaying` is a base with a source that went on,
//! `side_work` is what a server does beside the ledger, `random_work` makes schemas and statements, `mixed_work` is all that a log can hold, side by side, `command` runs `holdfast` as a user would, `bed` is such a user with one
//! protected server, `daemon_bed` one whose daemon runs, `balancer` is an address that leads to two servers, `copied` is a base without a repository, `recorded` is a source that only plays one, `watch` ends what would hang, `cable` is a wire that can be cut, `stalls` tells how long the machine stood still, `stepped_clock` sets the clock of one program. The end-to-end tests themselves are in `tests/tests`.
//!
//! A test that needs a server fails when there is none: `tools/test` gets them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this crate is the test bed: a panic is how a test fails"
)]

pub mod balancer;
pub mod bed;
pub mod cable;
pub mod command;
pub mod copied;
pub mod daemon_bed;
pub mod files_log;
pub mod ledger;
pub mod mixed_work;
pub mod model;
pub mod random;
pub mod random_work;
pub mod recorded;
pub mod replaying;
pub mod replica;
pub mod server;
pub mod side_work;
pub mod stalls;
pub mod state;
pub mod stepped_clock;
pub mod watch;

pub use command::{Holdfast, Outcome};
pub use ledger::{Ack, Ledger, LedgerOptions};
pub use random::Random;
pub use server::{Engine, TestServer};
pub use stalls::Stalls;
pub use state::{ServerState, differences};
pub use watch::StopOnDrop;
