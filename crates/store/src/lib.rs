//! The Holdfast repository: segments, maps, manifest, keys, index.
//!
//! Owns everything between "here are blocks of a file" and objects in a place, and back:
//! deduplication, compression, encryption, the one commit point, recovery after a crash.
//! Refuses to know MySQL, the user's configuration and the system's clock (time comes in
//! through [`Clock`]). Start reading at `repository.rs`; a block's way in is
//! `backup/writer.rs` -> `backup/pipeline.rs` -> `segment/writer.rs`, its way out
//! `reader.rs` -> `segment/view.rs`.

pub mod backup;
mod bases;
mod cipher;
mod clock;
mod codec;
mod error;
mod gc;
pub mod index;
mod keys;
mod lanes;
mod logs;
mod manifest;
mod map;
pub mod parity;
mod place;
mod pool;
mod random;
mod reader;
mod rekey;
mod renew;
mod repository;
mod restore;
mod scrub;
mod segment;
mod session;
mod signing;
mod slots;

pub use backup::{BackupDraft, BackupWriter, FileNo, FileSpec};
pub use cipher::Engine;
pub use clock::{Clock, FixedClock};
pub use error::{Error, Result};
pub use gc::{Carry, Discard, DiscardReason, PruneOptions, PrunePlan, PruneReport, Space};
pub use holdfast_format as format;
pub use keys::{Argon2Cost, RecoveryKit, Secret};
pub use logs::{LogFrame, LogFrames, LogKind, LogSegment, LogState, LogWriter};
pub use place::place_for_new;
pub use reader::{BackupReader, BlockKind};
pub use rekey::{RekeyPlan, RekeyProgress, RekeyReport};
pub use repository::{CreateOptions, EXPIRED, OpenOptions, Repository, VerifyWrite};
pub use restore::{Difference, Existing, RestoreOptions, RestoreProgress, RestoreSummary};
pub use scrub::{ScrubOptions, ScrubProgress, ScrubSummary};
pub use segment::Healing;
pub use signing::{PublicKey, Signed, is_signed};
pub use slots::{KeySlotInfo, KeySlotKind, Rotated};
