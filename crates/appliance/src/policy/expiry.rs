//! What retention means for one server of a repository: shown first, then carried out.

use super::{Policy, Reason, kept_until, points_of, retain_all};
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::keep::forget_one;
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

/// Says what of the server called `name` these policies keep now; the first one is the one that holds. Changes nothing.
///
/// # Errors
/// `Usage` when there is no server of that name.
pub fn expiry(catalogue: &Catalogue, name: &str, policies: &[&Policy], now: Micros) -> Result<ExpiryView> {
    let server = catalogue.server(name)?;
    let (points, intervals) = points_of(catalogue, &server)?;
    let retained = retain_all(policies, &points, &intervals, now);
    let kept = retained.kept.iter().map(|kept| KeptView {
        id: kept.id.to_string(),
        reasons: kept.reasons.iter().copied().collect(),
        until: policies.first().and_then(|policy| kept_until(policy, &points, &kept.id)),
    });
    Ok(ExpiryView {
        server: server.name.clone(),
        kept: kept.collect(),
        forget: retained.forget.iter().map(ToString::to_string).collect(),
        ids: retained.forget,
    })
}

/// Forgets what no promise needs; gives what was done. The space comes back when the repository is pruned.
///
/// # Errors
/// When a record can't be written; what was forgotten before stays so.
pub fn expire(catalogue: &Catalogue, name: &str, policies: &[&Policy], now: Micros) -> Result<ExpiryView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let view = expiry(catalogue, name, policies, now)?;
    for backup in &view.ids {
        forget_one(catalogue, *backup, "retention: no promised point needs it")?;
    }
    Ok(view)
}
