//! The API's doors: a Unix socket always, TCP behind TLS and tokens where the configuration says so.
//!
//! One thread with a small runtime answers; whatever reads the repository goes to its pool of blocking threads.

mod alerts;
mod answer;
mod api;
mod assets;
mod body;
mod deletions;
mod history;
mod once;
mod route;
mod rows;
mod settings;

pub(crate) use api::restore_place;
pub(crate) use once::Answering;
pub(crate) use settings::told;

use crate::daemon::Daemon;
use crate::tokens::{Caller, Role};
use answer::Answer;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::time::now;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

/// Connections at the same time; the rest waits.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take for the head of a request, or for the TLS handshake.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How often the API says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// The running API.
#[derive(Debug)]
pub struct Api {
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Api {
    /// Takes no more requests; answers that are under way have a moment.
    pub fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A local user: whom the socket's permissions let in may do everything.
    Local(Caller),
    /// Somebody on the network: his token says who he is.
    Network,
}

/// Opens the doors and answers until [`Api::stop`].
///
/// # Errors
/// `Failed` when an address is taken or a certificate can't be used.
pub fn serve(daemon: &Arc<Daemon>) -> Result<Api> {
    let unix = unix_listener(daemon)?;
    let network = network_listener(daemon)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_name("api-blocking")
        .build()
        .map_err(|error| Error::failed(format!("The API can't be started: {error}.")))?;
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::clone(daemon);
    let thread = std::thread::Builder::new()
        .name("api".to_owned())
        .spawn(move || {
            runtime.block_on(answer_all(shared, unix, network, stopped));
            // Answers that a blocking thread still works on are nobody's any more.
            runtime.shutdown_timeout(Duration::from_secs(1));
        })
        .map_err(|error| Error::failed(format!("The API can't be started: {error}.")))?;
    Ok(Api { stop, thread: Some(thread) })
}

/// The socket, with its permissions from the first moment that somebody can connect.
fn unix_listener(daemon: &Daemon) -> Result<UnixListener> {
    let config = daemon.config();
    let path = &config.socket;
    let failed = |error: std::io::Error| {
        Error::failed(format!("The socket {} can't be offered: {error}.", path.display()))
            .with_next("name another one with 'socket', or make its folder")
    };
    if UnixStream::connect(path).is_ok() {
        return Err(Error::failed(format!("Somebody else answers at {} already.", path.display()))
            .with_next("stop it, or name another 'socket'"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mode = config.socket_mode()?;
    // Under another name until its permissions are what they are to be.
    let door = path.with_extension("new");
    let _ = std::fs::remove_file(&door);
    let listener = UnixListener::bind(&door).map_err(failed)?;
    std::fs::set_permissions(&door, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    std::fs::rename(&door, path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn network_listener(daemon: &Daemon) -> Result<Option<(TcpListener, tokio_rustls::TlsAcceptor)>> {
    let config = daemon.config();
    let Some(listen) = &config.listen else { return Ok(None) };
    let wrong = |what: &std::path::Path, why: &dyn std::fmt::Display| {
        Error::usage(format!("{} can't be used for TLS: {why}.", what.display()))
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&listen.certificate)
        .and_then(Iterator::collect)
        .map_err(|e| wrong(&listen.certificate, &e))?;
    let key = PrivateKeyDer::from_pem_file(&listen.key).map_err(|e| wrong(&listen.key, &e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // TLS 1.2 and 1.3: rustls knows no older ones.
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|e| wrong(&listen.certificate, &e))?;
    let failed =
        |error: std::io::Error| Error::failed(format!("{} can't be listened on: {error}.", listen.address));
    let listener = TcpListener::bind(listen.address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Some((listener, tokio_rustls::TlsAcceptor::from(Arc::new(config)))))
}

async fn answer_all(
    daemon: Arc<Daemon>,
    unix: UnixListener,
    network: Option<(TcpListener, tokio_rustls::TlsAcceptor)>,
    mut stopped: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let unix = tokio::net::UnixListener::from_std(unix);
    let network = network.map(|(l, tls)| tokio::net::TcpListener::from_std(l).map(|l| (l, tls))).transpose();
    let (Ok(unix), Ok(network)) = (unix, network) else {
        tracing::error!("the API's doors can't be opened");
        return;
    };
    if let Some((listener, acceptor)) = network {
        tokio::spawn(answer_network(Arc::clone(&daemon), listener, acceptor, Arc::clone(&slots)));
    }
    let mut alive = tokio::time::interval(ALIVE_EVERY);
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            _ = alive.tick() => daemon.api_alive.store(now(), Ordering::Relaxed),
            accepted = unix.accept() => {
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let who = stream.peer_cred().map_or_else(|_| "local".to_owned(), |c| format!("uid:{}", c.uid()));
                let peer = Peer::Local(Caller { name: who, role: Role::Admin, by_token: false });
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move {
                    converse(daemon, stream, peer).await;
                    drop(slot);
                });
            }
        }
    }
}

async fn answer_network(
    daemon: Arc<Daemon>,
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    slots: Arc<Semaphore>,
) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if !allowed(&daemon, from.ip()) {
            tracing::warn!(from = %from.ip(), "not on the allow-list");
            continue;
        }
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (daemon, acceptor) = (Arc::clone(&daemon), acceptor.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HEAD_WAIT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => converse(daemon, stream, Peer::Network).await,
                Ok(Err(error)) => tracing::debug!(from = %from.ip(), %error, "no TLS"),
                Err(_) => tracing::debug!(from = %from.ip(), "the TLS handshake took too long"),
            }
            drop(slot);
        });
    }
}

fn allowed(daemon: &Daemon, from: IpAddr) -> bool {
    let config = daemon.config();
    let Some(listen) = &config.listen else { return false };
    listen.allow.is_empty() || listen.allow.iter().any(|network| network.holds(from))
}

/// Answers one connection's requests.
async fn converse(daemon: Arc<Daemon>, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
    let service = service_fn(|request| {
        let (daemon, peer) = (Arc::clone(&daemon), peer.clone());
        async move {
            let begun = Instant::now();
            let line = format!("{} {}", request.method(), request.uri().path());
            let answer: Answer = route::answer(&daemon, &peer, request).await;
            daemon.counters.request_took(begun.elapsed());
            tracing::debug!(request = %line, status = answer.status().as_u16(), "answered");
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}
