//! Taking a backup in: `writer.rs` is the door, `pipeline.rs` the threads behind it, `place.rs` what becomes of a block,
//! `sealing.rs` the segments' end, `files.rs` what is known of each file meanwhile, `commit.rs` the end.

mod commit;
mod files;
mod pipeline;
mod place;
mod sealing;
mod writer;

pub use commit::BackupDraft;
pub use files::{FileNo, FileSpec};
pub use writer::BackupWriter;
