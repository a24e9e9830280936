//! The MySQL and MariaDB wire protocol.
//!
//! Owns packets, the handshake, authentication, TLS, text queries, the binlog dump and
//! the clone commands, the credentials as users keep them, and scripts of SQL as the
//! clients split them (`script.rs`). The protocol itself is sans-I/O; `conn` drives it over a blocking socket, and a dump's socket can be handed to
//! an asynchronous task (`dump/driven.rs`). Refuses to know the repository and server
//! processes. Start reading at `conn.rs`.

pub mod auth;
pub mod capabilities;
pub mod clone;
pub mod conn;
pub mod credentials;
pub mod dump;
pub mod error;
pub mod handshake;
pub mod login_path;
pub mod options;
pub mod packet;
pub mod response;
pub mod resultset;
pub mod script;
pub mod tls;
mod transport;
pub mod version;
pub mod wire;

pub use conn::{Conn, Done, Interrupter};
pub use dump::{BinlogStream, DumpFrom, DumpOptions, EventBytes, Next, Ready};
pub use error::{Error, Result, ServerError};
pub use options::{ConnectOptions, Endpoint, PublicKey, Secret, TlsMode, TlsOptions};
pub use resultset::{Column, ResultSet, RowRef};
pub use transport::StreamSocket;
pub use version::{Flavor, ServerVersion};
