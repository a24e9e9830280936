//! Taking a backup in: `writer.rs` is the door, `pipeline.rs` the threads behind it, `files.rs` what is known of
//! each file meanwhile, `commit.rs` the end.

mod commit;
mod files;
mod pipeline;
mod writer;

pub use commit::BackupDraft;
pub use files::{FileNo, FileSpec};
pub use writer::BackupWriter;
