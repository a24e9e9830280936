//! What is mutated, and which tests must notice.

use std::path::Path;
use std::{fs, io};

/// One campaign.
pub struct Scope {
    pub name: &'static str,
    /// Folders and files whose product code is mutated.
    sources: &'static [&'static str],
    /// The packages whose tests are run.
    pub tested: &'static [&'static str],
}

/// The campaigns that there are.
pub const SCOPES: &[Scope] = &[
    Scope {
        name: "format",
        sources: &["crates/format/src"],
        tested: &["holdfast-format", "holdfast-store", "holdfast-fsck"],
    },
    Scope {
        name: "commit",
        sources: &[
            "crates/store/src/backup/commit.rs",
            "crates/store/src/backup/sealing.rs",
            "crates/store/src/gc",
            "crates/store/src/logs/tail.rs",
            "crates/store/src/logs/writer.rs",
            "crates/store/src/manifest.rs",
            "crates/store/src/manifest/copies.rs",
            "crates/store/src/manifest/packs.rs",
            "crates/store/src/renew.rs",
            "crates/store/src/segment/carrier.rs",
            "crates/store/src/segment/writer.rs",
            "crates/store/src/session.rs",
        ],
        tested: &["holdfast-store", "holdfast-fsck"],
    },
];

impl Scope {
    /// The crates that are mutated.
    pub fn crates(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> = self.sources.iter().filter_map(|path| path.split('/').nth(1)).collect();
        names.dedup();
        names
    }

    /// The files that are mutated, by path within the tree.
    pub fn files(&self, top: &Path) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for source in self.sources {
            walk(top, source, &mut found)?;
        }
        found.sort();
        Ok(found)
    }
}

fn walk(top: &Path, name: &str, found: &mut Vec<String>) -> io::Result<()> {
    if top.join(name).is_dir() {
        for entry in fs::read_dir(top.join(name))? {
            walk(top, &format!("{name}/{}", entry?.file_name().to_string_lossy()), found)?;
        }
    } else if name.ends_with(".rs") && !name.ends_with("/tests.rs") {
        found.push(name.to_owned());
    }
    Ok(())
}
