//! The name of a file inside a copy.
//!
//! Names come from servers, streams and folders, none of which is trusted: a name that could leave the
//! folder it will one day be laid out in never becomes a [`FilePath`].

use std::fmt;
use std::path::Path;

/// Longest path taken, in bytes: PATH_MAX of Linux.
pub const PATH_BYTES_MAX: usize = 4096;

/// Longest component, in bytes: NAME_MAX of Linux.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// A relative path: components joined by `/`, none of them empty, `.` or `..`, no NUL anywhere.
///
/// Bytes, not text: the names of a datadir are bytes, and a backup gives them back as they were.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Vec<u8>);

/// Why a name is no [`FilePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing at all.
    #[error("the name is empty")]
    Empty,
    /// Longer than [`PATH_BYTES_MAX`], or a component longer than [`COMPONENT_BYTES_MAX`].
    #[error("the name is longer than a file system takes")]
    TooLong,
    /// Begins at the root.
    #[error("the name is absolute")]
    Absolute,
    /// `.`, `..` or nothing between two slashes.
    #[error("the name has an empty component, \".\" or \"..\"")]
    Component,
    /// A NUL byte.
    #[error("the name has a NUL byte")]
    Nul,
}

impl FilePath {
    /// Takes a name if it can't lead out of a folder.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        for component in bytes.split(|&b| b == b'/') {
            if component.is_empty() || component == b"." || component == b".." {
                return Err(PathError::Component);
            }
            if component.len() > COMPONENT_BYTES_MAX {
                return Err(PathError::TooLong);
            }
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// Everything before the last component; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let cut = self.0.iter().rposition(|&b| b == b'/')?;
        self.0.get(..cut).map(|bytes| Self(bytes.to_vec()))
    }

    /// The same as a path of the system, to be joined to a folder.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        use std::os::unix::ffi::OsStrExt;
        Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for (name, why) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("..", PathError::Component),
            ("a/../../b", PathError::Component),
            ("./a", PathError::Component),
            ("a//b", PathError::Component),
            ("a/", PathError::Component),
            ("a\0b", PathError::Nul),
        ] {
            assert_eq!(FilePath::new(name.as_bytes()), Err(why), "{name:?}");
        }
        assert_eq!(FilePath::new(vec![b'a'; 256]), Err(PathError::TooLong));
        assert_eq!(FilePath::new(vec![b'a'; 5000]), Err(PathError::TooLong));
    }

    #[test]
    fn parent_and_name_are_cut_at_the_last_slash() {
        let path = FilePath::new("shop/orders.ibd").unwrap();
        assert_eq!(path.file_name(), b"orders.ibd");
        assert_eq!(path.parent().unwrap().as_bytes(), b"shop");
        assert_eq!(path.parent().unwrap().parent(), None);
    }

    proptest! {
        #[test]
        fn an_accepted_name_stays_below_the_folder_it_is_joined_to(
            bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(0u8), any::<u8>()], 0..40)
        ) {
            if let Ok(path) = FilePath::new(bytes) {
                let plain = path.as_path().components()
                    .all(|c| matches!(c, std::path::Component::Normal(_)));
                prop_assert!(plain);
            }
        }
    }
}
