//! `[alerts]`: who is told what, and on which way.

use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::policy::Span;
use lettre::message::Mailbox;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Recipients of mail at most: each has a message and a connection of his own.
const RECIPIENTS_MAX: usize = 20;

/// Who is told what.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// Something must have been wrong, or right again, for so long.
    pub after: Span,
    /// Asked for while everything is well: a dead-man switch, which raises an alarm when it hears nothing.
    pub ping: Option<String>,
    /// How often.
    pub ping_every: Span,
    /// Asked for instead while a server is red.
    pub ping_fail: Option<String>,
    /// PEM file with certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Addresses that each alert is posted to.
    #[serde(rename = "webhook")]
    pub webhooks: Vec<Webhook>,
    /// People that each alert is mailed to.
    pub mail: Option<Mail>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            after: Span::minutes(1),
            ping: None,
            ping_every: Span::minutes(5),
            ping_fail: None,
            ca: None,
            webhooks: Vec::new(),
            mail: None,
        }
    }
}

/// An address that alerts are posted to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The address: https, or http to this host.
    pub url: String,
    /// File whose first line is the secret that messages are signed with.
    pub secret_file: PathBuf,
}

impl Webhook {
    /// What it is called where its address must not be written.
    #[must_use]
    pub fn mark(&self) -> String {
        mark(&self.url)
    }

    /// The host of the address: the rest may be a secret.
    #[must_use]
    pub fn host(&self) -> String {
        let uri: Option<hyper::Uri> = self.url.parse().ok();
        uri.as_ref().and_then(hyper::Uri::host).unwrap_or("no host").to_owned()
    }

    /// The secret.
    ///
    /// # Errors
    /// `Usage` when the file can't be read or is empty.
    pub fn secret(&self) -> Result<Zeroizing<String>> {
        first_line(&self.secret_file, "webhook's secret")
    }
}

/// How alerts are mailed: through one server, which takes mail from here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// The server's name or address.
    pub host: String,
    /// Its port; else 587 for `starttls`, 465 for `tls`, 25 for `none`.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the connection is kept secret.
    #[serde(default)]
    pub tls: MailTls,
    /// Account to log in with; none: without a login.
    #[serde(default)]
    pub user: Option<String>,
    /// File whose first line is its password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The sender: `holdfast@example.org`, or `Holdfast <holdfast@example.org>`.
    pub from: String,
    /// The recipients. Each has a message of his own: one that is refused delays no other.
    pub to: Vec<String>,
}

/// How a connection to a mail server is kept secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// It begins in plain text, and nothing is said before TLS.
    #[default]
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Plain text: to this host itself only.
    None,
}

impl Mail {
    /// The port that is connected to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            MailTls::StartTls => 587,
            MailTls::Tls => 465,
            MailTls::None => 25,
        })
    }

    /// What a recipient is called where messages to him are kept.
    #[must_use]
    pub fn mark(recipient: &str) -> String {
        mark(&format!("mailto:{recipient}"))
    }

    /// The password of `user`.
    ///
    /// # Errors
    /// `Usage` when the file can't be read or is empty.
    pub fn password(&self) -> Result<Option<Zeroizing<String>>> {
        self.password_file.as_deref().map(|file| first_line(file, "mail server's password")).transpose()
    }

    fn check(&self) -> Result<()> {
        let here = matches!(self.host.as_str(), "127.0.0.1" | "localhost" | "::1");
        if self.tls == MailTls::None && !here {
            return Err(Error::usage(format!("Alerts can't be mailed to {} in plain text.", self.host))
                .with_next("use tls = \"starttls\" or \"tls\"; \"none\" only to this host itself"));
        }
        let plain = |text: &str| !text.is_empty() && !text.chars().any(|c| c.is_control() || c == ' ');
        if !plain(&self.host) || self.port == Some(0) {
            return Err(Error::usage("alerts.mail.host is no name of a host, or the port is 0."));
        }
        match (&self.user, &self.password_file) {
            (Some(user), Some(_)) if plain(user) => {
                self.password()?;
            }
            (None, None) => {}
            _ => {
                return Err(Error::usage("alerts.mail needs user and password_file, or neither of them.")
                    .with_next("write the account's password into a file that only the daemon can read"));
            }
        }
        if self.to.is_empty() || self.to.len() > RECIPIENTS_MAX {
            return Err(Error::usage(format!(
                "alerts.mail.to has {} recipients; it must have 1 to {RECIPIENTS_MAX}.",
                self.to.len()
            )));
        }
        address(&self.from)?;
        self.to.iter().try_for_each(|to| address(to).map(drop))
    }
}

/// An address as it may stand in a message's head.
///
/// # Errors
/// `Usage` when it is none, or holds what would begin another line there.
pub(crate) fn address(text: &str) -> Result<Mailbox> {
    let wrong = || {
        Error::usage(format!("'{}' is no address for mail.", text.escape_default()))
            .with_next("write for example ops@example.org, or Operations <ops@example.org>")
    };
    if text.chars().any(char::is_control) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

impl Alerts {
    /// Refuses what would carry alerts or passwords in plain text to somebody else.
    pub(super) fn check(&self) -> Result<()> {
        let all = self.webhooks.iter().map(|w| &w.url).chain(&self.ping).chain(&self.ping_fail);
        for url in all {
            let uri: Option<hyper::Uri> = url.parse().ok();
            let (scheme, host) = uri.as_ref().map_or((None, None), |uri| (uri.scheme_str(), uri.host()));
            let here = matches!(host, Some("127.0.0.1" | "localhost" | "[::1]"));
            match (scheme, host) {
                (Some("https"), Some(_)) => {}
                (Some("http"), Some(_)) if here => {}
                // The address may be a secret: only its host is named.
                _ => {
                    return Err(Error::usage(format!(
                        "Alerts can't be sent to the address at {}.",
                        host.unwrap_or("no host")
                    ))
                    .with_next("write https://HOST/…; http only to this host itself"));
                }
            }
        }
        self.webhooks.iter().try_for_each(|w| w.secret().map(drop))?;
        if let Some(mail) = &self.mail {
            mail.check()?;
        }
        if self.ping_every < Span::seconds(1) {
            return Err(Error::usage("alerts.ping_every must be 1s or more."));
        }
        Ok(())
    }
}

fn mark(address: &str) -> String {
    blake3::hash(address.as_bytes()).to_hex().as_str().chars().take(16).collect()
}

/// The first line of a file with a secret in it.
fn first_line(path: &Path, what: &str) -> Result<Zeroizing<String>> {
    let file = path.display();
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| Error::usage(format!("The {what} {file} can't be read: {error}.")))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(Error::usage(format!("The {what} {file} is empty."))
            .with_next("write the secret that the receiver knows into its first line")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(change: impl FnOnce(&mut Mail)) -> Result<()> {
        let mut mail: Mail = toml::from_str(
            "host = 'mail.example.org'\nfrom = 'holdfast@example.org'\nto = ['ops@example.org']",
        )
        .unwrap();
        change(&mut mail);
        mail.check()
    }

    #[test]
    fn three_lines_are_enough_for_mail_and_mean_starttls_on_587() {
        mail(|m| assert_eq!((m.tls, m.port()), (MailTls::StartTls, 587))).unwrap();
        mail(|m| m.to.push("Ops of Köln <ops@example.org>".into())).unwrap();
        mail(|m| {
            m.tls = MailTls::None;
            m.host = "localhost".into();
            assert_eq!(m.port(), 25);
        })
        .unwrap();
    }

    #[test]
    fn what_would_carry_a_password_in_plain_text_or_begin_another_line_is_refused() {
        let refused = |change: fn(&mut Mail)| mail(change).unwrap_err().message;
        assert!(refused(|m| m.tls = MailTls::None).contains("plain text"));
        assert!(refused(|m| m.user = Some("ops".into())).contains("password_file"));
        assert!(refused(|m| m.host = "a\r\nb".into()).contains("host"));
        assert!(refused(|m| m.to.clear()).contains("0 recipients"));
        for bad in
            ["ops", "ops@example.org\r\nBcc: x@y.org", "A\nB <ops@example.org>", "<ops@example.org>\r\n"]
        {
            let error = address(bad).unwrap_err();
            assert!(error.message.contains("no address") && !error.message.contains('\n'), "{bad:?}");
        }
        assert!(
            mail(|m| (m.user, m.password_file) = (Some("u".into()), Some("/no/file".into())))
                .unwrap_err()
                .message
                .contains("/no/file")
        );
    }
}
