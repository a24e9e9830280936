//! The page, compiled in: nothing is loaded from elsewhere.

use super::answer::{Answer, answer};
use hyper::StatusCode;

/// The file at a path, if it belongs to the page.
pub(super) fn asset(path: &str) -> Option<Answer> {
    let (kind, text): (&'static str, &'static str) = match path {
        "/" | "/index.html" => ("text/html; charset=utf-8", include_str!("../../page/index.html")),
        "/app.js" => ("text/javascript; charset=utf-8", include_str!("../../page/app.js")),
        "/backups.js" => ("text/javascript; charset=utf-8", include_str!("../../page/backups.js")),
        "/find.js" => ("text/javascript; charset=utf-8", include_str!("../../page/find.js")),
        "/history.js" => ("text/javascript; charset=utf-8", include_str!("../../page/history.js")),
        "/restore.js" => ("text/javascript; charset=utf-8", include_str!("../../page/restore.js")),
        "/timeline.js" => ("text/javascript; charset=utf-8", include_str!("../../page/timeline.js")),
        "/style.css" => ("text/css; charset=utf-8", include_str!("../../page/style.css")),
        "/icon.svg" => ("image/svg+xml", include_str!("../../page/icon.svg")),
        _ => return None,
    };
    Some(answer(StatusCode::OK, kind, text))
}
