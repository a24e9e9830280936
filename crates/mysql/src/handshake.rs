//! The connection phase's packets: the server's greeting, our answer, the request for TLS.
//!
//! Source: MySQL's documentation of the classic protocol ("Protocol::HandshakeV10",
//! "Protocol::HandshakeResponse41") and MariaDB's knowledge base ("Connection packets").

use crate::capabilities as caps;
use crate::error::{Error, Result};
use crate::options::ConnectOptions;
use crate::version::ServerVersion;
use crate::wire::{Reader, put_lenenc_bytes, put_nul_bytes};

/// Length of the challenge that all of today's plugins use.
pub const NONCE_LEN: usize = 20;

/// `utf8mb4_general_ci`: known to every server of both families since 5.5.
const COLLATION: u8 = 45;

/// The longest packet we say that we take: 1 GiB, the servers' own ceiling.
const CLIENT_PACKET_MAX: u32 = 1 << 30;

/// What the server says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Version and family.
    pub version: ServerVersion,
    /// The connection's id in the server's lists.
    pub thread_id: u32,
    /// The challenge.
    pub nonce: Vec<u8>,
    /// The server's capability flags.
    pub capabilities: u32,
    /// Status flags.
    pub status: u16,
    /// The plugin that the challenge is meant for.
    pub auth_plugin: String,
}

impl Greeting {
    /// Reads `Protocol::HandshakeV10`. An ERR packet (host blocked, too many connections) becomes the server's error.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        if payload.first() == Some(&0xff) {
            return Err(Error::Server(crate::response::parse_err(payload)?));
        }
        let mut reader = Reader::new("the greeting", payload);
        let protocol = reader.u8()?;
        if protocol != 10 {
            return Err(Error::protocol("the greeting", "protocol 10", format!("protocol {protocol}")));
        }
        let version = ServerVersion::parse(&String::from_utf8_lossy(reader.nul_bytes()));
        let thread_id = reader.u32()?;
        let mut nonce = reader.take(8)?.to_vec();
        reader.u8()?;
        let low = u32::from(reader.u16()?);
        let _collation = reader.u8()?;
        let status = reader.u16()?;
        let capabilities = low | (u32::from(reader.u16()?) << 16);
        let nonce_len = reader.u8()?;
        reader.take(10)?;
        let required = caps::PROTOCOL_41 | caps::SECURE_CONNECTION | caps::PLUGIN_AUTH;
        if capabilities & required != required {
            return Err(Error::protocol(
                "the greeting",
                "a server of MySQL 5.5 or MariaDB 5.5 or later",
                format!("capabilities {capabilities:#010x} of {version}"),
            ));
        }
        let second = reader.take(usize::from(nonce_len).saturating_sub(8).max(13))?;
        // The last byte of the second part is a NUL that is not part of the challenge.
        nonce.extend_from_slice(second.get(..NONCE_LEN - 8).unwrap_or_default());
        let auth_plugin = String::from_utf8_lossy(reader.nul_bytes()).into_owned();
        Ok(Self { version, thread_id, nonce, capabilities, status, auth_plugin })
    }
}

/// The flags that we ask for, out of those that the server has.
#[must_use]
pub fn client_capabilities(server: u32, options: &ConnectOptions, tls: bool) -> u32 {
    let mut wanted = caps::LONG_PASSWORD
        | caps::LONG_FLAG
        | caps::LOCAL_FILES
        | caps::PROTOCOL_41
        | caps::TRANSACTIONS
        | caps::SECURE_CONNECTION
        | caps::MULTI_RESULTS
        | caps::PLUGIN_AUTH
        | caps::PLUGIN_AUTH_LENENC_DATA
        | caps::CONNECT_ATTRS;
    if options.multi_statements {
        wanted |= caps::MULTI_STATEMENTS;
    }
    if options.database.is_some() {
        wanted |= caps::CONNECT_WITH_DB;
    }
    if tls {
        wanted |= caps::SSL;
    }
    // MariaDB leaves LONG_PASSWORD out of its own flags, but wants to see it in ours.
    wanted & (server | caps::LONG_PASSWORD)
}

fn put_head(capabilities: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&capabilities.to_le_bytes());
    out.extend_from_slice(&CLIENT_PACKET_MAX.to_le_bytes());
    out.push(COLLATION);
    out.extend_from_slice(&[0; 23]);
}

/// `Protocol::SSLRequest`: after it both sides start TLS.
#[must_use]
pub fn ssl_request(capabilities: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    put_head(capabilities, &mut out);
    out
}

/// `Protocol::HandshakeResponse41` with the answer to the challenge of `plugin`.
#[must_use]
pub fn response(capabilities: u32, options: &ConnectOptions, plugin: &str, answer: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    put_head(capabilities, &mut out);
    put_nul_bytes(&mut out, options.user.as_bytes());
    if capabilities & caps::PLUGIN_AUTH_LENENC_DATA != 0 {
        put_lenenc_bytes(&mut out, answer);
    } else {
        // Answers are at most 255 bytes in this form; ours are 64 at most in this packet.
        let answer = answer.get(..answer.len().min(255)).unwrap_or_default();
        out.push(answer.len() as u8);
        out.extend_from_slice(answer);
    }
    if capabilities & caps::CONNECT_WITH_DB != 0 {
        put_nul_bytes(&mut out, options.database.as_deref().unwrap_or_default().as_bytes());
    }
    put_nul_bytes(&mut out, plugin.as_bytes());
    if capabilities & caps::CONNECT_ATTRS != 0 {
        let mut attributes = Vec::new();
        for (key, value) in [
            ("_client_name", "holdfast"),
            ("_client_version", env!("CARGO_PKG_VERSION")),
            ("_os", std::env::consts::OS),
            ("program_name", options.program_name.as_str()),
        ] {
            put_lenenc_bytes(&mut attributes, key.as_bytes());
            put_lenenc_bytes(&mut attributes, value.as_bytes());
        }
        put_lenenc_bytes(&mut out, &attributes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Flavor;
    use proptest::prelude::*;

    fn greeting_bytes(version: &str, plugin: &str) -> Vec<u8> {
        let mut out = vec![10];
        put_nul_bytes(&mut out, version.as_bytes());
        out.extend_from_slice(&77u32.to_le_bytes());
        out.extend_from_slice(b"abcdefgh\0");
        out.extend_from_slice(&0xffffu16.to_le_bytes());
        out.push(255);
        out.extend_from_slice(&2u16.to_le_bytes());
        out.extend_from_slice(&0xdfffu16.to_le_bytes());
        out.push(21);
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(b"ijklmnopqrst\0");
        put_nul_bytes(&mut out, plugin.as_bytes());
        out
    }

    #[test]
    fn the_greeting_of_a_server_is_read() {
        let greeting = Greeting::parse(&greeting_bytes("9.7.4-2", "caching_sha2_password")).unwrap();
        assert_eq!(greeting.nonce, b"abcdefghijklmnopqrst");
        assert_eq!(greeting.thread_id, 77);
        assert_eq!(greeting.auth_plugin, "caching_sha2_password");
        assert_eq!(greeting.version.flavor, Flavor::MySql);
    }

    #[test]
    fn a_greeting_that_is_an_error_is_the_servers_error() {
        let error = Greeting::parse(b"\xff\x10\x04Too many connections").unwrap_err();
        assert_eq!(error.code(), Some(1040));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_greeting_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Greeting::parse(&bytes);
        }

        #[test]
        fn a_cut_greeting_is_an_error_or_a_shorter_name(cut in 0usize..80) {
            let whole = greeting_bytes("9.7.4", "caching_sha2_password");
            let _ = Greeting::parse(&whole[..cut.min(whole.len())]);
        }
    }
}
