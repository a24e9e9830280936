//! One request to somebody outside: HTTPS (plain HTTP on this host only), one deadline over all of it, no redirects; or
//! one mail.

use super::mail::{MAIL_MAX, Mailer, Refused};
use super::outbox::Message;
use crate::config::{Alerts, Webhook};
use aws_lc_rs::hmac;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::time::now;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a request may take, from the name's look-up to the head of the answer.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// How often a request that waits looks whether the daemon ends.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Sends requests, one after the other.
pub(super) struct Sender {
    made_for: Alerts,
    runtime: tokio::runtime::Runtime,
    tls: TlsConnector,
    mailer: Option<Mailer>,
}

impl Sender {
    /// A sender that trusts the system's certificates, and those of `alerts.ca`.
    pub(super) fn new(alerts: &Alerts) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        // What of the system's store can't be read is trusted by nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(ca) = &alerts.ca {
            let wrong = |why: &dyn std::fmt::Display| {
                Error::usage(format!("The certificates in {} can't be used: {why}.", ca.display()))
                    .with_next("alerts.ca is a PEM file with the certificates of your own authority")
            };
            for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| wrong(&e))? {
                let certificate = certificate.map_err(|e| wrong(&e))?;
                roots.add(certificate).map_err(|e| wrong(&e))?;
            }
        }
        let failed = |why: &dyn std::fmt::Display| Error::failed(format!("Alerts can't be sent: {why}."));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
        let runtime = runtime.map_err(|e| failed(&e))?;
        let mailer = alerts.mail.as_ref().map(|mail| Mailer::new(mail, alerts)).transpose()?;
        Ok(Self { made_for: alerts.clone(), runtime, tls: TlsConnector::from(Arc::new(config)), mailer })
    }

    /// Whether it was made for this configuration.
    pub(super) fn is_of(&self, alerts: &Alerts) -> bool {
        self.made_for == *alerts
    }

    /// Asks for an address; the answer must say that all is well.
    pub(super) fn get(&self, url: &str, stop: &dyn Fn() -> bool) -> std::result::Result<(), String> {
        self.send(url, Method::GET, &[], String::new(), stop)
    }

    /// Sends a message to a webhook, signed.
    pub(super) fn post(
        &self,
        webhook: &Webhook,
        message: &Message,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<(), String> {
        let secret = webhook.secret().map_err(|error| error.message)?;
        let timestamp = (now() / 1_000_000).to_string();
        let signed = format!("sha256={}", signature(secret.as_bytes(), &timestamp, &message.body));
        let headers = [
            ("x-holdfast-delivery", message.id.as_str()),
            ("x-holdfast-timestamp", &timestamp),
            ("x-holdfast-signature", &signed),
        ];
        self.send(&webhook.url, Method::POST, &headers, message.body.clone(), stop)
    }

    /// Mails a message to one of the recipients.
    pub(super) fn mail(
        &self,
        to: &str,
        message: &Message,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<(), Refused> {
        let ours = |why: &str| Refused { why: why.to_owned(), unreached: true };
        let Some(mailer) = &self.mailer else { return Err(ours("no mail server is configured")) };
        self.within(MAIL_MAX, mailer.send(to, message), stop).unwrap_or_else(|why| Err(ours(&why)))
    }

    /// Waits for something outside, but neither for ever nor into the end of the daemon.
    fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<T, String> {
        self.runtime.block_on(async {
            let stopped = async {
                while !stop() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            tokio::select! {
                done = tokio::time::timeout(limit, work) => {
                    done.map_err(|_| format!("no answer within {} s", limit.as_secs()))
                }
                () = stopped => Err("it was broken off".to_owned()),
            }
        })
    }

    fn send(
        &self,
        url: &str,
        method: Method,
        headers: &[(&str, &str)],
        body: String,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<(), String> {
        let uri: Uri = url.parse().map_err(|_| "its address is not one".to_owned())?;
        let host = uri.host().ok_or("its address names no host")?.to_owned();
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let authority = uri.authority().map_or(host.as_str(), |a| a.as_str());
        let mut request = Request::builder().method(method).uri(path).header(HOST, authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent = HeaderValue::from_static(concat!("holdfastd/", env!("CARGO_PKG_VERSION")));
        let request = request
            .header(USER_AGENT, agent)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        // The host is named, and never the rest of the address: that may be a secret.
        let told = |why: String| format!("{host}: {why}");
        let done = self.within(REQUEST_MAX, self.asked(&uri, &host, request), stop);
        done.and_then(|done| done).map_err(told)
    }

    async fn asked(
        &self,
        uri: &Uri,
        host: &str,
        request: Request<Full<Bytes>>,
    ) -> std::result::Result<(), String> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
        if !secure {
            return converse(stream, request).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        converse(stream, request).await
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> std::result::Result<(), String> {
    let words = |error: hyper::Error| error.to_string();
    let (mut asker, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let answer = asker.send_request(request);
    tokio::pin!(answer);
    // A connection that ends may have brought the answer with its last bytes.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
    .map_err(words)?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("it answered {}", answer.status().as_u16()))
    }
}

/// HMAC-SHA256 under the shared secret, of the time (seconds since 1970 as text), a dot, and the body; hexadecimal. With
/// the time in it, an old message that somebody sends again can be told from a new one.
#[must_use]
pub fn signature(secret: &[u8], timestamp: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body.as_bytes());
    context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with OpenSSL: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
    #[test]
    fn a_signature_is_what_other_programs_compute() {
        assert_eq!(
            signature(b"secret", "1700000000", "{\"a\":1}"),
            "49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
        );
    }
}
