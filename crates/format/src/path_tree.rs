//! The paths of a map as a tree: each once, and nothing below what is no folder. See `format-spec/map.md`.
//!
//! A restore makes files where the map says; below a link it would write wherever that leads.

use std::collections::{HashMap, HashSet};

/// Enough of a path's BLAKE3 to tell paths apart, with a third of the memory of most paths.
type Key = [u8; 16];

/// The paths told so far, in any order.
#[derive(Debug, Default)]
pub struct PathTree {
    /// True for folders.
    told: HashMap<Key, bool>,
    /// Every path that another one lies below.
    above: HashSet<Key>,
}

impl PathTree {
    /// Takes the next path. The error is a sentence about it.
    pub fn add(&mut self, path: &[u8], folder: bool) -> Result<(), &'static str> {
        let own = key(path);
        if self.told.contains_key(&own) {
            return Err("it is there twice");
        }
        if !folder && self.above.contains(&own) {
            return Err("another path lies below it, and it is no folder");
        }
        let mut rest = path;
        while let Some(slash) = rest.iter().rposition(|b| *b == b'/') {
            rest = rest.get(..slash).unwrap_or_default();
            let above = key(rest);
            if self.told.get(&above) == Some(&false) {
                return Err("it lies below what is no folder");
            }
            // Then all above it are known, too.
            if !self.above.insert(above) {
                break;
            }
        }
        self.told.insert(own, folder);
        Ok(())
    }
}

fn key(path: &[u8]) -> Key {
    blake3::hash(path).as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::PathTree;

    fn all(paths: &[(&str, bool)]) -> Result<(), &'static str> {
        let mut tree = PathTree::default();
        paths.iter().try_for_each(|(path, folder)| tree.add(path.as_bytes(), *folder))
    }

    #[test]
    fn folders_may_be_told_before_after_or_not_at_all() {
        all(&[("a", true), ("a/b", true), ("a/b/c", false), ("a/bb", false), ("ab", false)]).unwrap();
        all(&[("a/b/c", false), ("a/b", true), ("a", true), ("x/y/z", false)]).unwrap();
    }

    #[test]
    fn a_path_that_comes_again_is_refused() {
        all(&[("a", true), ("a", false)]).unwrap_err();
        all(&[("a/b", false), ("a/b", false)]).unwrap_err();
    }

    #[test]
    fn nothing_lies_below_a_file_or_a_link_whichever_comes_first() {
        all(&[("a", false), ("a/b", false)]).unwrap_err();
        all(&[("a/b/c/d", false), ("a/b", false)]).unwrap_err();
        all(&[("x/y", false), ("x/y/z/w", true)]).unwrap_err();
        all(&[("a/b/c", false), ("a/b/d", false), ("a", false)]).unwrap_err();
    }
}
