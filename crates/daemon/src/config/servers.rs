//! `[[server]]`: what differs for single servers.

use super::Config;
use holdfast_appliance::check_queries::{self, Queries};
use holdfast_appliance::copy_from::CopyFrom;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::policy::Span;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// What differs for one server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its name in the repository.
    pub name: String,
    /// Its policy.
    #[serde(default = "super::default_policy")]
    pub policy: String,
    /// Its commits wait until they are durable here.
    #[serde(default)]
    pub semi_sync: bool,
    /// Check queries that each drill asks: SQL, with what is expected in a comment.
    #[serde(default)]
    pub check_queries: Vec<String>,
    /// A file with more of them.
    #[serde(default)]
    pub check_file: Option<PathBuf>,
    /// Replicas that are copied in place of it, the first fit one: `HOST` or `HOST:PORT`.
    #[serde(default)]
    pub copy_from: Vec<String>,
    /// How far behind such a replica may be.
    #[serde(default = "default_lag")]
    pub max_replica_lag: Span,
}

fn default_lag() -> Span {
    Span::seconds(30)
}

impl Config {
    /// The check queries of a server's drills.
    ///
    /// # Errors
    /// `Usage` with what is wrong in them, or a file that can't be read.
    pub fn queries_of(&self, server: &str) -> Result<Queries> {
        let limit = Duration::from_micros(u64::try_from(self.drills.query_time.0).unwrap_or(0));
        // What comes is for whoever may see rows; alerts and jobs are for more people.
        let mut queries = Queries { limit, told: false, ..Queries::default() };
        let Some(server) = self.servers.iter().find(|s| s.name == server) else { return Ok(queries) };
        for text in &server.check_queries {
            check_queries::add_text(&mut queries, text, &format!("check_queries of '{}'", server.name))?;
        }
        if let Some(file) = &server.check_file {
            check_queries::add_file(&mut queries, file)?;
        }
        Ok(queries)
    }

    /// The replicas that a server's backups are copied from, if it names some. Where none is fit, the server is copied.
    ///
    /// # Errors
    /// `Usage` for what names no host, and for a limit below a second.
    pub fn copy_from(&self, server: &str) -> Result<Option<CopyFrom>> {
        let Some(server) = self.servers.iter().find(|s| s.name == server && !s.copy_from.is_empty()) else {
            return Ok(None);
        };
        if server.max_replica_lag < Span::seconds(1) {
            return Err(Error::usage(format!("max_replica_lag of '{}' must be 1s or more.", server.name)));
        }
        CopyFrom::new(&server.copy_from, server.max_replica_lag.duration(), true).map(Some)
    }

    /// Whether the commits of a server wait until they are durable here.
    #[must_use]
    pub fn is_semi_sync(&self, server: &str) -> bool {
        self.servers.iter().any(|s| s.name == server && s.semi_sync)
    }
}
