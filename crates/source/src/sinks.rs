//! Two sinks that keep a copy as it is: in memory, and as a folder.
//!
//! Tests read what a source produced from them, and `FolderSink` lays a copy out for a server to start on
//! with no repository between. Both hold callers to the contract of `sink.rs`: a breach is an error here.

mod folder;
mod memory;

pub use folder::FolderSink;
pub use memory::MemorySink;
