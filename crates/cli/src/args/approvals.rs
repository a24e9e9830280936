//! What waits for a second person.

use clap::Subcommand;

/// `holdfast approvals …`.
#[derive(Debug, Subcommand)]
pub enum ApprovalVerb {
    /// Show what waits, and what was decided lately
    List,
    /// Agree to what another administrator asked for; it is done at once
    Approve {
        /// The request's number
        id: u64,
    },
    /// Reject a request, or take your own one back
    Reject {
        /// The request's number
        id: u64,
    },
}
