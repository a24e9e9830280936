//! What retention means for one server of a repository: shown first, then carried out.

use super::{Policy, Reason, kept_until, points_of, retain_all};
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::keep::forget_expired;
use crate::server_lock::floor;
use crate::time::Micros;
use crate::views::maybe_time;
use holdfast_format::ids::BackupId;
use serde::Serialize;

/// A backup that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptView {
    /// Its id.
    pub id: String,
    /// Why.
    pub reasons: Vec<Reason>,
    /// It is promised to be there until then; `null`: for ever.
    #[serde(serialize_with = "maybe_time")]
    pub until: Option<Micros>,
}

/// What retention keeps of a server, and what it would forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpiryView {
    /// The server's name.
    pub server: String,
    /// Oldest first.
    pub kept: Vec<KeptView>,
    /// Ids of the backups that no promise needs, oldest first.
    pub forget: Vec<String>,
    #[serde(skip)]
    ids: Vec<BackupId>,
}

/// Says what of the server called `name` these policies keep now; the first one is the one that holds. The terms of a lock
/// on the server count with them. Changes nothing.
///
/// # Errors
/// `Usage` when there is no server of that name.
pub fn expiry(catalogue: &Catalogue, name: &str, policies: &[&Policy], now: Micros) -> Result<ExpiryView> {
    let server = catalogue.server(name)?;
    let (points, intervals) = points_of(catalogue, &server)?;
    let floor = floor(catalogue, server.id);
    let policies: Vec<&Policy> = policies.iter().copied().chain(&floor).collect();
    let retained = retain_all(&policies, &points, &intervals, now);
    // What is promised: by the policy that holds, and by the lock.
    let promising = || policies.first().copied().into_iter().chain(&floor);
    let until = |id: &BackupId| promising().map(|p| kept_until(p, &points, id)).reduce(later).flatten();
    let kept = retained.kept.iter().map(|kept| KeptView {
        id: kept.id.to_string(),
        reasons: kept.reasons.iter().copied().collect(),
        until: until(&kept.id),
    });
    Ok(ExpiryView {
        server: server.name.clone(),
        kept: kept.collect(),
        forget: retained.forget.iter().map(ToString::to_string).collect(),
        ids: retained.forget,
    })
}

/// The later of two times; `None` is for ever.
fn later(a: Option<Micros>, b: Option<Micros>) -> Option<Micros> {
    a.zip(b).map(|(a, b)| a.max(b))
}

/// Forgets what no promise needs; gives what was done. The space comes back when the repository is pruned.
///
/// # Errors
/// When a record can't be written; what was forgotten before stays so.
pub fn expire(catalogue: &Catalogue, name: &str, policies: &[&Policy], now: Micros) -> Result<ExpiryView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let view = expiry(catalogue, name, policies, now)?;
    for backup in &view.ids {
        forget_expired(catalogue, *backup, "no promised point needs it")?;
    }
    Ok(view)
}
