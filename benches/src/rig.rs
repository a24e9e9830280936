//! The side-by-side comparison: the same work for each tool, in one run, on real data.

pub mod archive;
pub mod dataset;
pub mod error;
pub mod figures;
pub mod find;
pub mod folder;
pub mod machine;
pub mod measure;
pub mod report;
pub mod scenario;
pub mod stored;
pub mod tools;

pub use error::{Error, Result};
