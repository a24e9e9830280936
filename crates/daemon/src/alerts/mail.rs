//! One mail to one person: SMTP with TLS, a head that nothing from outside can add a line to.

use super::outbox::Message;
use crate::config::{Alerts, Mail, MailTls, mail_address};
use holdfast_appliance::error::{Error, Result};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// How long one mail may take, from the name's look-up to the server's word that it has it. Servers that slow strangers
/// down take their time.
pub(super) const MAIL_MAX: Duration = Duration::from_secs(30);

/// Hands mail to the configured server.
pub(super) struct Mailer {
    mail: Mail,
    tls: Tls,
    hello: ClientId,
}

/// Why a mail was not taken.
pub(super) struct Refused {
    /// In words, without anything that the server said: it may repeat what it was told.
    pub(super) why: String,
    /// The server was not reached: the next mail would fare no better.
    pub(super) unreached: bool,
}

impl Mailer {
    /// Trusts the system's certificates, and those of `alerts.ca`.
    pub(super) fn new(mail: &Mail, alerts: &Alerts) -> Result<Self> {
        let failed = |why: &dyn std::fmt::Display| Error::failed(format!("Alerts can't be mailed: {why}."));
        let parameters = || -> Result<TlsParameters> {
            let mut builder = TlsParameters::builder(mail.host.clone());
            if let Some(ca) = &alerts.ca {
                let pem = std::fs::read(ca).map_err(|e| failed(&format!("{}: {e}", ca.display())))?;
                let certificate = Certificate::from_pem(&pem).map_err(|e| failed(&e))?;
                builder = builder.add_root_certificate(certificate);
            }
            builder.build_rustls().map_err(|e| failed(&e))
        };
        let tls = match mail.tls {
            MailTls::None => Tls::None,
            MailTls::StartTls => Tls::Required(parameters()?),
            MailTls::Tls => Tls::Wrapper(parameters()?),
        };
        Ok(Self { mail: mail.clone(), tls, hello: hello() })
    }

    /// Sends a message to one of the recipients.
    pub(super) async fn send(&self, to: &str, message: &Message) -> std::result::Result<(), Refused> {
        let ours = |why: String| Refused { why, unreached: false };
        let letter = letter(&self.mail.from, to, message).map_err(|error| ours(error.message))?;
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.mail.host)
            .port(self.mail.port())
            .tls(self.tls.clone())
            .hello_name(self.hello.clone())
            .timeout(Some(MAIL_MAX));
        if let Some(user) = &self.mail.user
            && let Some(password) = self.mail.password().map_err(|error| ours(error.message))?
        {
            builder = builder.credentials(Credentials::new(user.clone(), password.as_str().to_owned()));
        }
        let host = &self.mail.host;
        builder.build().send(letter).await.map(drop).map_err(|error| match error.status() {
            Some(code) => Refused { why: format!("{host} answered {code}"), unreached: false },
            None if error.is_response() || error.is_client() => {
                // What the server offers does not fit: no STARTTLS, no way to log in, an answer that is none.
                Refused { why: format!("{host}: what it offers does not fit"), unreached: false }
            }
            None => Refused { why: format!("{host}: {error}"), unreached: true },
        })
    }
}

/// What we are called: this host's name where it is one that servers take.
fn hello() -> ClientId {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let fine = !name.is_empty()
        && name.len() <= 253
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if fine { ClientId::Domain(name.to_owned()) } else { ClientId::default() }
}

/// The message as a mail. The same message has the same `Message-ID`, however often it is sent.
fn letter(from: &str, to: &str, message: &Message) -> Result<lettre::Message> {
    let failed = |why: &dyn std::fmt::Display| Error::failed(format!("The mail can't be written: {why}."));
    let from = mail_address(from)?;
    let body: Value = serde_json::from_str(&message.body).map_err(|e| failed(&e))?;
    let told = |name: &str| {
        let text = body.get(name).and_then(Value::as_str).unwrap_or_default();
        // One line each, whatever a server's own error message holds.
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
    };
    let server = if told("server").is_empty() { "repository".to_owned() } else { told("server") };
    let (code, level) = (told("code"), told("level"));
    let subject = match told("event").as_str() {
        "test" => "[holdfast] a test".to_owned(),
        "resolved" => format!("[holdfast] over: {server}: {code}"),
        _ => format!("[holdfast] {level}: {server}: {code}"),
    };
    let text = format!(
        "{}\n\nWhere  {server}\nWhat   {code} ({level}), {}\nSince  {}\nTold   {}\nId     {}\n\n\
         The page and `holdfast status` say more.\n",
        told("text"),
        told("event"),
        told("since"),
        told("at"),
        told("id"),
    );
    let id = format!("<{}.{}@{}>", message.id, Mail::mark(to), from.email.domain());
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(message.at).unwrap_or(0));
    lettre::Message::builder()
        .from(from)
        .to(mail_address(to)?)
        .date(at)
        .message_id(Some(id))
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .subject(subject)
        .header(ContentType::TEXT_PLAIN)
        .body(text)
        .map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(server: &str, text: &str) -> Message {
        let body = serde_json::json!({
            "id": "a-1", "event": "raised", "at": "2026-11-22T10:00:00Z", "since": "2026-11-22T09:59:00Z",
            "server": server, "code": "hole", "level": "amber", "text": text,
        });
        Message { id: "a-1".into(), to: String::new(), body: body.to_string(), at: 0, tries: 0, next: 0 }
    }

    fn heads(letter: &lettre::Message) -> Vec<String> {
        let text = String::from_utf8(letter.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        head.split("\r\n").map(str::to_owned).collect()
    }

    /// Names of servers have no such characters; an error message of a server may have any.
    #[test]
    fn no_text_of_an_alert_adds_a_line_to_the_head() {
        let evil = "x\r\nBcc: thief@example.net\r\n\r\n.\r\nMAIL FROM:<a@b>";
        let plain =
            letter("Holdfast <h@example.org>", "ops@example.org", &message("shop", "a hole")).unwrap();
        let odd = letter("Holdfast <h@example.org>", "ops@example.org", &message(evil, evil)).unwrap();
        let names = |letter: &lettre::Message| -> Vec<String> {
            let heads = heads(letter);
            // Folded lines go on with a space.
            let own = heads.iter().filter(|line| !line.starts_with([' ', '\t']));
            own.map(|line| line.split_once(':').unwrap().0.to_owned()).collect()
        };
        assert_eq!(names(&plain), names(&odd));
        assert!(names(&plain).contains(&"Auto-Submitted".to_owned()));
        assert_eq!(plain.envelope().to().len(), 1);
        assert_eq!(odd.envelope().to().len(), 1);
        let body = String::from_utf8(plain.formatted()).unwrap();
        assert!(body.contains("Subject: [holdfast] amber: shop: hole\r\n"), "{body}");
        assert!(body.contains("\r\n\r\na hole\r\n"), "{body}");
    }

    #[test]
    fn the_same_message_has_the_same_id_and_date_for_each_try_and_another_for_each_person() {
        let of = |to: &str| letter("h@example.org", to, &message("shop", "x")).unwrap().formatted();
        assert_eq!(of("a@example.org"), of("a@example.org"));
        let id = |mail: Vec<u8>| {
            let text = String::from_utf8(mail).unwrap();
            text.lines().find(|l| l.starts_with("Message-ID: ")).unwrap().to_owned()
        };
        assert!(id(of("a@example.org")).contains("<a-1."));
        assert_ne!(id(of("a@example.org")), id(of("b@example.org")));
    }
}
