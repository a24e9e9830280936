//! Authentication, sans-I/O: what to send when the server sends what.
//!
//! One file per method. The methods' answers are pure functions; `Exchange` is the state machine that both
//! `conn` and tests drive.

mod ed25519;
mod native;
mod rsa;
mod sha2;

use crate::error::Result;
use crate::options::Secret;
use crate::response::{is_eof, parse_err, parse_ok};
use crate::wire::Reader;

/// The methods we can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Native,
    CachingSha2,
    Sha256,
    Clear,
    Ed25519,
    /// `unix_socket` and `auth_socket`: the kernel tells the server who we are.
    Socket,
}

impl Plugin {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "mysql_native_password" => Self::Native,
            "caching_sha2_password" => Self::CachingSha2,
            "sha256_password" => Self::Sha256,
            "mysql_clear_password" => Self::Clear,
            "client_ed25519" => Self::Ed25519,
            "unix_socket" | "auth_socket" => Self::Socket,
            _ => return None,
        })
    }
}

/// What is known about the channel that the answers travel over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// TLS is on.
    pub tls: bool,
    /// A socket file: nobody can listen in.
    pub local: bool,
}

/// Whose key the password may go under where nothing else protects it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeyTrust {
    /// Nobody's.
    #[default]
    None,
    /// This one's, as PEM.
    Pem(Vec<u8>),
    /// The one's that the server sends.
    AsSent,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this packet and read the next one.
    Send(Vec<u8>),
    /// Read the next packet.
    Read,
    /// Logged in.
    Done(crate::response::OkPacket),
}

/// Why an exchange can't go on; the connection is of no use after it.
#[derive(Debug)]
pub enum Stop {
    /// The protocol was broken, or the server said no.
    Error(crate::error::Error),
    /// The method cannot be used, with what to do instead.
    Reason(String),
}

impl From<crate::error::Error> for Stop {
    fn from(error: crate::error::Error) -> Self {
        Self::Error(error)
    }
}

/// One login: from the greeting's challenge to OK.
#[derive(Debug)]
pub struct Exchange {
    password: Secret,
    channel: Channel,
    trust: KeyTrust,
    plugin: Plugin,
    nonce: Vec<u8>,
    awaiting_key: bool,
}

impl Exchange {
    /// Begins with the server's default method, or with `mysql_native_password` where we don't know that one
    /// (the server then switches). Returns the method's name and the answer for the handshake response.
    pub fn begin(
        password: Option<&Secret>,
        channel: Channel,
        default_plugin: &str,
        nonce: &[u8],
    ) -> (Self, &'static str, Vec<u8>) {
        let (plugin, name) = match Plugin::by_name(default_plugin) {
            Some(Plugin::CachingSha2) => (Plugin::CachingSha2, "caching_sha2_password"),
            // A method that would show the password waits until the server asks by name.
            _ => (Plugin::Native, "mysql_native_password"),
        };
        let password = password.cloned().unwrap_or_else(|| Secret::new(Vec::new()));
        let trust = KeyTrust::None;
        let exchange = Self { password, channel, trust, plugin, nonce: nonce.to_vec(), awaiting_key: false };
        let answer = match plugin {
            Plugin::CachingSha2 => sha2::scramble(exchange.password.expose(), nonce),
            _ => native::scramble(exchange.password.expose(), nonce),
        };
        (exchange, name, answer)
    }

    /// The same, with a key that the password may go under.
    #[must_use]
    pub fn trusting(mut self, trust: KeyTrust) -> Self {
        self.trust = trust;
        self
    }

    /// The password under a key: the one we know, or the one that is asked for with `request`.
    fn under_key(&mut self, request: u8) -> Result<Step, Stop> {
        match &self.trust {
            // Nobody can put in a key of his own on a socket file.
            _ if self.channel.local => {}
            KeyTrust::AsSent => {}
            KeyTrust::Pem(pem) => {
                return rsa::encrypt_password(self.password.expose(), &self.nonce, pem)
                    .map(Step::Send)
                    .map_err(Stop::Reason);
            }
            KeyTrust::None => {
                return Err(Stop::Reason(
                    "the server asks for the password, and this connection has no TLS: anybody between could send a key \
                     of his own and read it; give the server a certificate (tls = \"required\" or better), name its key \
                     with server-public-key-path, or take the risk with get-server-public-key"
                        .to_owned(),
                ));
            }
        }
        self.awaiting_key = true;
        Ok(Step::Send(vec![request]))
    }

    /// Takes one packet of the server.
    pub fn receive(&mut self, payload: &[u8]) -> Result<Step, Stop> {
        match payload.first() {
            Some(0x00) => Ok(Step::Done(parse_ok(payload)?)),
            Some(0xff) => Err(Stop::Error(crate::error::Error::Server(parse_err(payload)?))),
            Some(0x01) => self.more_data(payload.get(1..).unwrap_or_default()),
            Some(0xfe) if payload.len() == 1 || (is_eof(payload) && payload.len() < 3) => Err(Stop::Reason(
                "the account uses passwords of before MySQL 4.1; give it a new password".into(),
            )),
            Some(0xfe) => self.switch(payload),
            other => Err(Stop::Error(crate::error::Error::protocol(
                "the authentication",
                "OK, ERR, a switch or more data",
                format!("{other:02x?}"),
            ))),
        }
    }

    fn switch(&mut self, payload: &[u8]) -> Result<Step, Stop> {
        let mut reader = Reader::new("an authentication switch", payload);
        reader.u8()?;
        let name = String::from_utf8_lossy(reader.nul_bytes()).into_owned();
        let nonce = reader.rest();
        self.nonce = nonce.strip_suffix(&[0]).unwrap_or(nonce).to_vec();
        self.awaiting_key = false;
        let Some(plugin) = Plugin::by_name(&name) else {
            return Err(Stop::Reason(format!(
                "the account's authentication method {name} isn't known to Holdfast; use an account with \
                 caching_sha2_password, mysql_native_password, ed25519 or a socket"
            )));
        };
        self.plugin = plugin;
        let password = self.password.expose();
        Ok(Step::Send(match plugin {
            Plugin::Native => native::scramble(password, &self.nonce),
            Plugin::CachingSha2 => sha2::scramble(password, &self.nonce),
            Plugin::Ed25519 => ed25519::sign(password, &self.nonce),
            Plugin::Socket => Vec::new(),
            Plugin::Clear if self.channel.tls || self.channel.local => nul_terminated(password),
            Plugin::Clear => {
                return Err(Stop::Reason(format!(
                    "the server asks for the password in clear ({name}), which Holdfast sends over TLS only; set tls = \"required\""
                )));
            }
            Plugin::Sha256 if password.is_empty() => vec![0],
            Plugin::Sha256 if self.channel.tls => nul_terminated(password),
            Plugin::Sha256 => return self.under_key(1),
        }))
    }

    fn more_data(&mut self, data: &[u8]) -> Result<Step, Stop> {
        if self.awaiting_key {
            self.awaiting_key = false;
            return rsa::encrypt_password(self.password.expose(), &self.nonce, data)
                .map(Step::Send)
                .map_err(Stop::Reason);
        }
        match (self.plugin, data) {
            // The server knows the hash: OK follows.
            (Plugin::CachingSha2, [3]) => Ok(Step::Read),
            (Plugin::CachingSha2, [4]) if self.channel.tls || self.channel.local => {
                Ok(Step::Send(nul_terminated(self.password.expose())))
            }
            (Plugin::CachingSha2, [4]) => self.under_key(2),
            _ => Err(Stop::Error(crate::error::Error::protocol(
                "the authentication",
                format!("data of {:?}", self.plugin),
                format!("{} bytes", data.len()),
            ))),
        }
    }
}

fn nul_terminated(password: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(password.len() + 1);
    out.extend_from_slice(password);
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Channel = Channel { tls: false, local: false };
    const TLS: Channel = Channel { tls: true, local: false };

    fn begin(channel: Channel, plugin: &str) -> Exchange {
        Exchange::begin(Some(&Secret::from("pw")), channel, plugin, &[7; 20]).0
    }

    fn switch_to(plugin: &str) -> Vec<u8> {
        let mut out = vec![0xfe];
        out.extend_from_slice(plugin.as_bytes());
        out.push(0);
        out.extend_from_slice(&[9; 20]);
        out.push(0);
        out
    }

    #[test]
    fn the_password_goes_in_clear_over_tls_only() {
        let mut plain = begin(PLAIN, "caching_sha2_password");
        assert!(matches!(plain.receive(&switch_to("mysql_clear_password")), Err(Stop::Reason(_))));
        let mut tls = begin(TLS, "caching_sha2_password");
        assert_eq!(tls.receive(&switch_to("mysql_clear_password")).unwrap(), Step::Send(b"pw\0".to_vec()));
    }

    #[test]
    fn a_password_goes_under_a_key_that_nobody_vouches_for_only_if_that_is_wanted() {
        for (plugin, ask, request) in [
            ("caching_sha2_password", [1, 4].to_vec(), 2),
            ("sha256_password", switch_to("sha256_password"), 1),
        ] {
            let Err(Stop::Reason(reason)) = begin(PLAIN, plugin).receive(&ask) else { panic!("it was sent") };
            assert!(reason.contains("get-server-public-key") && reason.contains("tls"), "{reason}");
            let mut trusting = begin(PLAIN, plugin).trusting(KeyTrust::AsSent);
            assert_eq!(trusting.receive(&ask).unwrap(), Step::Send(vec![request]));
            let mut pinned = begin(PLAIN, plugin).trusting(KeyTrust::Pem(b"no key".to_vec()));
            assert!(matches!(pinned.receive(&ask), Err(Stop::Reason(_))), "the known key is used, no other");
        }
        let local = Channel { tls: false, local: true };
        let asked = begin(local, "sha256_password").receive(&switch_to("sha256_password"));
        assert_eq!(asked.unwrap(), Step::Send(vec![1]));
    }

    #[test]
    fn over_tls_the_password_is_sent_as_it_is() {
        let mut tls = begin(TLS, "caching_sha2_password");
        assert_eq!(tls.receive(&[1, 4]).unwrap(), Step::Send(b"pw\0".to_vec()));
        assert_eq!(tls.receive(&[1, 3]).unwrap(), Step::Read);
    }

    #[test]
    fn an_unknown_method_names_itself_and_the_known_ones() {
        let Err(Stop::Reason(reason)) = begin(TLS, "x").receive(&switch_to("authentication_kerberos")) else {
            panic!("the switch was taken");
        };
        assert!(reason.contains("authentication_kerberos") && reason.contains("caching_sha2_password"));
    }

    proptest! {
        #[test]
        fn any_packets_of_the_server_end_in_a_step_or_an_error(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..5),
            tls in any::<bool>(),
        ) {
            let mut exchange = begin(Channel { tls, local: false }, "caching_sha2_password");
            for packet in packets {
                let _ = exchange.receive(&packet);
            }
        }
    }
}
