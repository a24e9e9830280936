//! From a request to its handler: who is it, may he, which one.

use super::answer::{Answer, Outcome, Refusal, problem};
use super::api::{self, Request as Asked};
use super::{Peer, alerts, assets, deletions, history, rows, settings};
use crate::daemon::Daemon;
use crate::tokens::{Caller, Role};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request};
use std::sync::Arc;

/// Longest body of a request.
const BODY_MAX: usize = 64 << 10;
/// Longest idempotency key.
const KEY_MAX: usize = 200;

/// A handler; it may block.
type Handler = fn(&Daemon, &Asked) -> Outcome;

/// One operation of the API.
pub(super) struct Route {
    /// The method.
    pub(super) method: &'static str,
    /// The path below `/api/v1`; `{x}` stands for one part.
    pub(super) path: &'static str,
    /// Who may.
    pub(super) needs: Role,
    handler: Handler,
}

const fn route(method: &'static str, path: &'static str, needs: Role, handler: Handler) -> Route {
    Route { method, path, needs, handler }
}

/// Every operation but the stream of events. `openapi.json` describes each one; a test compares.
pub(super) const ROUTES: &[Route] = &[
    route("GET", "/openapi.json", Role::Viewer, api::openapi),
    route("GET", "/status", Role::Viewer, api::status),
    route("GET", "/servers", Role::Viewer, api::servers),
    route("GET", "/servers/{server}", Role::Viewer, api::server),
    route("GET", "/servers/{server}/timeline", Role::Viewer, api::timeline),
    route("GET", "/servers/{server}/history", Role::Viewer, history::of_server),
    route("GET", "/history", Role::Viewer, history::of_repository),
    route("GET", "/servers/{server}/transactions", Role::Viewer, api::transactions),
    // Rows of tables are for those who may restore them.
    route("GET", "/servers/{server}/transactions/{transaction}", Role::Restorer, rows::transaction),
    route("GET", "/servers/{server}/diff", Role::Restorer, rows::diff),
    route("GET", "/servers/{server}/at", Role::Viewer, api::at),
    route("GET", "/servers/{server}/retention", Role::Viewer, api::retention),
    route("GET", "/servers/{server}/doctor", Role::Operator, api::doctor),
    route("POST", "/servers/{server}/backups", Role::Operator, api::take_backup),
    route("POST", "/servers/{server}/pause", Role::Operator, api::pause),
    route("POST", "/servers/{server}/resume", Role::Operator, api::resume),
    route("GET", "/servers/{server}/drills", Role::Viewer, api::drills),
    route("POST", "/servers/{server}/drills", Role::Operator, api::begin_drill),
    route("GET", "/backups", Role::Viewer, api::backups),
    route("POST", "/restore-plans", Role::Restorer, api::plan_restore),
    route("POST", "/restores", Role::Restorer, api::begin_restore),
    route("POST", "/checks", Role::Operator, api::begin_check),
    route("POST", "/canaries", Role::Operator, api::begin_canary),
    route("POST", "/prunes", Role::Admin, deletions::begin_prune),
    route("DELETE", "/backups/{backup}", Role::Admin, deletions::forget),
    route("POST", "/backups/{backup}/lock", Role::Admin, deletions::lock_backup),
    route("POST", "/backups/{backup}/hold", Role::Admin, deletions::hold),
    route("POST", "/backups/{backup}/unhold", Role::Admin, deletions::release),
    route("DELETE", "/servers/{server}", Role::Admin, deletions::remove_server),
    route("POST", "/servers/{server}/undelete", Role::Admin, deletions::undelete),
    route("GET", "/servers/{server}/lock", Role::Viewer, deletions::lock),
    route("POST", "/servers/{server}/lock", Role::Admin, deletions::lock_server),
    route("POST", "/servers/{server}/unlock", Role::Admin, deletions::unlock_server),
    route("GET", "/approvals", Role::Viewer, deletions::requests),
    route("POST", "/approvals/{request}/approve", Role::Admin, deletions::approve),
    route("POST", "/approvals/{request}/reject", Role::Admin, deletions::reject),
    route("GET", "/jobs", Role::Viewer, api::jobs),
    route("GET", "/jobs/{job}", Role::Viewer, api::job),
    // Who may begin it may end it: the handler looks at the job.
    route("DELETE", "/jobs/{job}", Role::Viewer, api::cancel),
    route("GET", "/alerts", Role::Viewer, alerts::open),
    route("POST", "/alerts/test", Role::Operator, alerts::test),
    route("GET", "/audit", Role::Admin, api::audit),
    route("GET", "/report", Role::Admin, api::report),
    route("GET", "/settings", Role::Viewer, settings::settings),
    route("GET", "/me", Role::Viewer, api::me),
];

/// Answers a request.
pub(super) async fn answer(daemon: &Arc<Daemon>, peer: &Peer, request: Request<Incoming>) -> Answer {
    let head = request.method() == Method::HEAD;
    let outcome = dispatch(daemon, peer, request).await;
    let answer = outcome.unwrap_or_else(|refusal| problem(&refusal));
    // hyper leaves the body of an answer to HEAD out by itself.
    debug_assert!(!head || answer.status().as_u16() >= 200);
    answer
}

async fn dispatch(daemon: &Arc<Daemon>, peer: &Peer, request: Request<Incoming>) -> Outcome {
    let path = request.uri().path().to_owned();
    let looks = request.method() == Method::GET || request.method() == Method::HEAD;
    if looks {
        match path.as_str() {
            "/healthz" => return api::healthz(daemon),
            "/readyz" => return api::readyz(daemon),
            // The page itself holds nothing of anybody's; what it shows it asks of the API.
            _ => {
                if let Some(asset) = assets::asset(&path) {
                    return Ok(asset);
                }
            }
        }
    }
    let caller = caller(daemon, peer, &request)?;
    if looks && path == "/metrics" {
        may(&caller, Role::Viewer, daemon, "GET /metrics")?;
        let shared = Arc::clone(daemon);
        return blocking(move || api::metrics(&shared)).await;
    }
    let Some(below) = path.strip_prefix("/api/v1") else {
        return Err(Refusal::NotFound(format!("There is nothing at {path}.")));
    };
    if looks && below == "/events" {
        may(&caller, Role::Viewer, daemon, "GET /events")?;
        return api::events(daemon);
    }
    let method = if looks { "GET" } else { request.method().as_str() }.to_owned();
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(parts) = matched(route.path, below) else { continue };
        allowed.push(route.method);
        if route.method != method {
            continue;
        }
        let what = format!("{method} {below}");
        may(&caller, route.needs, daemon, &what)?;
        let query = request.uri().query().unwrap_or_default().to_owned();
        let key = idempotency_key(&request)?;
        let body = match Limited::new(request.into_body(), BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(Refusal::TooLarge),
            Err(_) => {
                return Err(holdfast_appliance::error::Error::usage("The request was cut short.").into());
            }
        };
        let asked = Asked { parts, query, body, key, caller, what };
        let (shared, handler) = (Arc::clone(daemon), route.handler);
        return blocking(move || handler(&shared, &asked)).await;
    }
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    Err(if allowed.is_empty() {
        Refusal::NotFound(format!("There is nothing at {path}."))
    } else {
        Refusal::Method(allowed)
    })
}

/// Runs what may block on a thread of its own.
async fn blocking(work: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(%error, "an answer was not finished");
            Err(holdfast_appliance::error::Error::failed("The answer was not finished.").into())
        }
    }
}

fn caller(daemon: &Daemon, peer: &Peer, request: &Request<Incoming>) -> Result<Caller, Refusal> {
    let header = request.headers().get(AUTHORIZATION);
    match peer {
        // Who shows a token is whom it names, and may no more than that one.
        Peer::Local(caller) if header.is_none() => Ok(caller.clone()),
        Peer::Local(_) | Peer::Network => {
            let text = header.and_then(|v| v.to_str().ok());
            let token = text.and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
            token.and_then(|token| daemon.tokens().caller(token)).ok_or(Refusal::Unauthorized)
        }
    }
}

/// Refuses what the role does not allow, and notes that somebody tried.
fn may(caller: &Caller, needs: Role, daemon: &Daemon, what: &str) -> Result<(), Refusal> {
    if caller.role.may(needs) {
        return Ok(());
    }
    daemon.audit.note(&caller.name, what, "forbidden")?;
    let needs = serde_json::to_value(needs).ok().and_then(|v| v.as_str().map(str::to_owned));
    Err(Refusal::Forbidden(
        format!("The token '{}' may not do that.", caller.name)
            + &needs.map(|role| format!(" The role {role} may.")).unwrap_or_default(),
    ))
}

fn idempotency_key(request: &Request<Incoming>) -> Result<Option<String>, Refusal> {
    let Some(key) = request.headers().get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= KEY_MAX => Ok(Some(key.to_owned())),
        _ => Err(holdfast_appliance::error::Error::usage("The idempotency key is not one.")
            .with_next(format!("use 1 to {KEY_MAX} printable characters"))
            .into()),
    }
}

/// The parts of a path that fill the pattern's places, decoded.
fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(parts),
            (Some(place), Some(part)) if place.starts_with('{') && !part.is_empty() => {
                parts.push(decoded(part)?);
            }
            (Some(place), Some(part)) if place == part => {}
            _ => return None,
        }
    }
}

/// Percent-decoded; `None` if that is no UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_openapi_text_describes_each_operation_and_no_other() {
        let text: serde_json::Value = serde_json::from_str(api::OPENAPI).unwrap();
        let described: BTreeSet<(String, String)> = text["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                operations
                    .as_object()
                    .unwrap()
                    .keys()
                    .filter(|k| k.as_str() != "parameters")
                    .map(move |m| (m.to_uppercase(), path.clone()))
            })
            .collect();
        let mut there: BTreeSet<(String, String)> =
            ROUTES.iter().map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
        there.insert(("GET".into(), "/events".into()));
        assert_eq!(described, there);
    }

    #[test]
    fn a_path_fills_its_places_and_nothing_else_matches() {
        assert_eq!(matched("/servers/{server}/at", "/servers/a%2Fb/at"), Some(vec!["a/b".into()]));
        assert_eq!(matched("/servers", "/servers"), Some(vec![]));
        for wrong in ["/servers/", "/servers//at", "/servers/a/at/", "/servers/%ff/at", "/servers/%2/at"] {
            assert_eq!(matched("/servers/{server}/at", wrong), None, "{wrong}");
        }
    }
}
