//! MySQL's CLONE protocol, the recipient's side: its two layers of bytes, and a connection that speaks them.
//!
//! `rpc` is the outer layer (one command byte or response byte, little endian), `descriptor` the inner one
//! (InnoDB's, big endian), `conn` the connection in clone mode. What to do when is not decided here: the state
//! machine belongs to the crate `source`.
//!
//! Source: the protocol as spoken by MySQL 8.0.17 to 9.7 and as observed on 9.7.4.

mod conn;
pub mod descriptor;
pub mod rpc;

pub use conn::{CloneConn, Message};
pub use descriptor::{
    DataDescriptor, Descriptor, FileDescriptor, FileFlags, InnoDbLocator, Progress, State, StateDescriptor,
    TaskDescriptor,
};
pub use rpc::{Command, Ddl, Locator, Response};
