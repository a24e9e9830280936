//! Answers: JSON, text, problems (RFC 9457).

use super::body::Reply;
use holdfast_appliance::error::{Code, Error};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// An answer.
pub(crate) type Answer = Response<Reply>;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The appliance's own error.
    Error(Error),
    /// There is no such thing.
    NotFound(String),
    /// The path knows other methods: these.
    Method(Vec<&'static str>),
    /// There is no token, or it is unknown.
    Unauthorized,
    /// The role does not allow it.
    Forbidden(String),
    /// The request is too large.
    TooLarge,
    /// It is asked for too often: why, and after how many seconds it may be asked for again.
    TooOften(String, u64),
    /// The daemon can't answer yet.
    NotReady(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What a handler gives.
pub(crate) type Outcome = Result<Answer, Refusal>;

/// A body with its type.
pub(crate) fn answer(status: StatusCode, kind: &'static str, body: impl Into<hyper::body::Bytes>) -> Answer {
    let mut answer = Response::new(Reply::Whole(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // The page loads nothing from elsewhere, and nobody else may frame it.
    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, what: &T) -> Outcome {
    let text = serde_json::to_vec(what)
        .map_err(|error| Error::failed(format!("The answer can't be written: {error}.")))?;
    Ok(answer(status, "application/json", text))
}

/// The HTTP status of an error's code.
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Usage => StatusCode::BAD_REQUEST,
        Code::Locked | Code::PolicyForbids => StatusCode::CONFLICT,
        Code::TargetUnreachable | Code::ProofFailed => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A refusal as a problem document.
pub(crate) fn problem(refusal: &Refusal) -> Answer {
    let (status, code, detail, next) = match refusal {
        Refusal::Error(error) => (
            status_of(error.code),
            crate::jobs::code_word(error.code),
            error.message.clone(),
            error.next.clone(),
        ),
        Refusal::NotFound(what) => (StatusCode::NOT_FOUND, "not_found".into(), what.clone(), None),
        Refusal::Method(_) => (
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed".into(),
            "This can't be done with that method.".into(),
            Some("see /api/v1/openapi.json".into()),
        ),
        Refusal::Unauthorized => (
            StatusCode::UNAUTHORIZED,
            "unauthorized".into(),
            "A token is needed.".into(),
            Some("send it as 'Authorization: Bearer TOKEN'; holdfastd token makes one".into()),
        ),
        Refusal::Forbidden(what) => (StatusCode::FORBIDDEN, "forbidden".into(), what.clone(), None),
        Refusal::TooLarge => {
            (StatusCode::PAYLOAD_TOO_LARGE, "usage".into(), "The request is too large.".into(), None)
        }
        Refusal::TooOften(why, seconds) => (
            StatusCode::TOO_MANY_REQUESTS,
            "locked".into(),
            why.clone(),
            Some(format!("ask again in {seconds} s")),
        ),
        Refusal::NotReady(why) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready".into(), why.clone(), None),
    };
    let document = serde_json::json!({
        "type": format!("urn:holdfast:problem:{code}"),
        "title": status.canonical_reason().unwrap_or("Refused"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
        "next": next,
    });
    let mut answer = answer(status, "application/problem+json", document.to_string());
    if let Refusal::Method(allowed) = refusal
        && let Ok(allowed) = allowed.join(", ").parse()
    {
        answer.headers_mut().insert(hyper::header::ALLOW, allowed);
    }
    if let Refusal::TooOften(_, seconds) = refusal {
        answer.headers_mut().insert(hyper::header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    if matches!(refusal, Refusal::Unauthorized) {
        answer.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    answer
}
