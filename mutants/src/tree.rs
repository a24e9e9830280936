//! A copy of the working tree in which the mutants are woven.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::find::Mutant;
use crate::scope::Scope;
use crate::weave::{CHOOSER, Woven, weave};

/// The copy, and the original texts of the files that are changed in it.
pub struct Tree {
    pub top: PathBuf,
    /// By path within the tree.
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Copies what git knows of the working tree, or would take in.
    pub fn copy(from: &Path, top: PathBuf, scope: &Scope) -> io::Result<Self> {
        let _ = fs::remove_dir_all(&top);
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(from)
            .output()?;
        for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
            let source = from.join(name);
            if !source.is_file() {
                continue;
            }
            let target = top.join(name);
            fs::create_dir_all(target.parent().unwrap_or(&top))?;
            fs::copy(source, target)?;
        }
        let mut files = BTreeMap::new();
        for name in scope.files(&top)? {
            let text = fs::read_to_string(top.join(&name))?;
            files.insert(name, text);
        }
        for name in scope.crates() {
            let source = top.join("crates").join(name).join("src");
            fs::write(source.join("woven.rs"), CHOOSER)?;
            let root = source.join("lib.rs");
            let text = fs::read_to_string(&root)?;
            // Behind everything else, so that no line moves.
            fs::write(&root, format!("{text}\nmod woven;\n"))?;
            if let Some(held) = files.get_mut(&format!("crates/{name}/src/lib.rs")) {
                held.push_str("\nmod woven;\n");
            }
        }
        without_lints(&top.join("Cargo.toml"))?;
        Ok(Self { top, files })
    }

    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Writes each file with its mutants woven in; says where they are.
    pub fn weave(
        &self,
        mutants: &BTreeMap<String, Vec<(u32, Mutant)>>,
    ) -> io::Result<BTreeMap<String, Woven>> {
        let mut all = BTreeMap::new();
        for (name, text) in &self.files {
            let woven = weave(text, mutants.get(name).map(Vec::as_slice).unwrap_or_default());
            let path = self.top.join(name);
            // Untouched where nothing is new, so that cargo need not build it again.
            if fs::read_to_string(&path)? != woven.text {
                fs::write(path, &woven.text)?;
            }
            all.insert(name.clone(), woven);
        }
        Ok(all)
    }
}

/// Mutants break lints on purpose; in the copy none is asked.
fn without_lints(manifest: &Path) -> io::Result<()> {
    let mut kept = String::new();
    let mut on = true;
    for line in fs::read_to_string(manifest)?.lines() {
        if line.starts_with('[') {
            on = !line.starts_with("[workspace.lints.");
            if !on {
                kept.push_str(&format!("{line}\n"));
                if line == "[workspace.lints.rust]" {
                    kept.push_str("warnings = \"allow\"\n");
                }
            }
        }
        if on {
            kept.push_str(&format!("{line}\n"));
        }
    }
    fs::write(manifest, kept)
}
