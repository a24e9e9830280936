//! The on-disk format of a Holdfast repository: bytes to types and back.
//!
//! Owns every structure that reaches the disk, the limits on each, the derivation of
//! keys, nonces, associated data and keyed ids, and the types that records carry
//! (GTID sets among them). Refuses to know files, clocks, threads and every other
//! crate here: a function of this crate depends on its arguments only.
//! Start reading at `format-spec/README.md`, whose chapters are named like the modules.

pub mod codec;
pub mod error;
pub mod gtid;
pub mod ids;
pub mod keyring;
pub mod keys;
pub mod limits;
pub mod log;
pub mod log_meta;
pub mod manifest;
pub mod map;
pub mod names;
pub mod pack;
pub mod parity;
pub mod path_tree;
pub mod record;
pub mod segment;
pub mod session;
pub mod txn_index;

pub use error::{Error, Result};

/// The version of every structure that this code writes, and the only one that it reads.
pub const VERSION: u32 = 1;
