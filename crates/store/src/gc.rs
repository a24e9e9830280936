//! Garbage collection: what nobody needs any more goes, what is half empty is compacted.
//!
//! No clock decides and nobody waits: a backup may run from first to last while this works.
//!
//! ```text
//! look -> mark -> plan -> condemn -> look again -> carry -> look again -> delete
//! ```
//!
//! * **Look** (`snapshot.rs`): the manifest and the live sessions at one moment, under the manifest's short lock.
//! * **Mark** (`mark.rs`): every frame that a wanted backup or a live session reaches, bases of deltas included.
//! * **Plan** (`plan.rs`): printable; dead segments, and those that are carried until little dead space is left.
//! * **Condemn**: a record. A session that begins after it never refers to a condemned segment of its own accord;
//!   what its parent refers to is alive as long as its session names that parent.
//! * **Carry** (`compact.rs`): once every backup that began before the record has ended. Live frames are copied as
//!   they are into a carrier, then a record says so.
//! * **Delete**: once every session that may not know the carrier has ended. The record comes first, then the objects.
//!
//! Whatever can't go on because somebody is at work stays condemned, and the next run goes on with it.

mod compact;
mod mark;
mod plan;
mod prune;
mod snapshot;
mod table;

pub(crate) use mark::holders;
pub use plan::{Carry, Discard, DiscardReason, PrunePlan, Space};
pub(crate) use prune::{Prune, retained};
pub use prune::{PruneOptions, PruneReport};
pub(crate) use table::SegmentTable;
