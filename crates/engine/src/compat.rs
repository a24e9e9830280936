//! Which server may open the data of which other.
//!
//! InnoDB's redo log must be recovered by a server that understands its format, and MySQL's
//! data dictionary is upgraded one way only. Both families keep the formats within a series:
//! two numbers of the version (9.7, 8.4, 10.11). So a copy is opened by a server of the same
//! series, by the very same version if there is a choice. MySQL 8.0 changed formats within the
//! series and refuses data of a later patch; the series after it do not.

use holdfast_mysql::{Flavor, ServerVersion};

/// How well a server fits data of another version. The better fit is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Same series, earlier patch.
    EarlierPatch,
    /// Same series, later patch: the server upgrades the data on the first start.
    LaterPatch,
    /// The very version.
    Exact,
}

/// Says how `server` fits data written by `data`, or why it does not.
pub fn fit(server: &ServerVersion, data: &ServerVersion) -> std::result::Result<Fit, String> {
    if server.flavor != data.flavor {
        return Err(format!("{} does not open the data of {}", server.flavor, data.flavor));
    }
    if (server.major, server.minor) != (data.major, data.minor) {
        return Err(format!(
            "A copy is opened only by a server of its own series, {}.{}",
            data.major, data.minor
        ));
    }
    match server.patch.cmp(&data.patch) {
        std::cmp::Ordering::Equal => Ok(Fit::Exact),
        std::cmp::Ordering::Greater => Ok(Fit::LaterPatch),
        std::cmp::Ordering::Less if data.flavor == Flavor::MySql && (data.major, data.minor) == (8, 0) => {
            Err("MySQL 8.0 does not open the data of a later patch".to_owned())
        }
        std::cmp::Ordering::Less => Ok(Fit::EarlierPatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(server: &str, data: &str) -> std::result::Result<Fit, String> {
        fit(&ServerVersion::parse(server), &ServerVersion::parse(data))
    }

    #[test]
    fn the_same_series_fits_and_the_same_version_fits_best() {
        assert_eq!(judge("9.7.4-2", "9.7.4"), Ok(Fit::Exact));
        assert_eq!(judge("9.7.5", "9.7.4"), Ok(Fit::LaterPatch));
        assert_eq!(judge("9.7.3", "9.7.4"), Ok(Fit::EarlierPatch));
        assert_eq!(judge("10.11.3-MariaDB", "10.11.19-MariaDB"), Ok(Fit::EarlierPatch));
        assert!(Fit::Exact > Fit::LaterPatch && Fit::LaterPatch > Fit::EarlierPatch);
    }

    #[test]
    fn another_series_or_family_is_refused_with_the_reason() {
        assert!(judge("9.6.0", "9.7.4").unwrap_err().contains("9.7"));
        assert!(judge("11.8.6-MariaDB", "10.11.19-MariaDB").unwrap_err().contains("10.11"));
        assert!(judge("10.11.19-MariaDB", "9.7.4").unwrap_err().contains("MariaDB"));
        assert!(judge("8.0.36", "8.0.37").unwrap_err().contains("later patch"));
    }
}
