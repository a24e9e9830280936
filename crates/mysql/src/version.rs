//! Which server answers: flavour and numbers out of the version text of the handshake.

use std::fmt;

/// The two families of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// MySQL and its rebuilds (Percona Server among them).
    MySql,
    /// MariaDB.
    MariaDb,
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        })
    }
}

/// A server's version as the handshake tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// The family.
    pub flavor: Flavor,
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
    /// The whole text, without MariaDB's `5.5.5-` prefix.
    pub text: String,
}

impl ServerVersion {
    /// Reads a version text such as `9.7.4-2`, `8.0.36-28` or `5.5.5-10.11.19-MariaDB-log`.
    /// Numbers that are missing or beyond 65535 read as 0.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let maria = text.to_ascii_lowercase().contains("mariadb");
        // MariaDB 10 put 5.5.5- before its version, because old replicas refused a two-digit major number.
        let text = if maria { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        let mut numbers =
            text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u16>().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        let (major, minor, patch) = (next(), next(), next());
        let flavor = if maria { Flavor::MariaDb } else { Flavor::MySql };
        Self { flavor, major, minor, patch, text: text.to_owned() }
    }

    /// The three numbers, to be compared.
    #[must_use]
    pub fn numbers(&self) -> (u16, u16, u16) {
        (self.major, self.minor, self.patch)
    }

    /// True for MariaDB.
    #[must_use]
    pub fn is_mariadb(&self) -> bool {
        self.flavor == Flavor::MariaDb
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flavor {
            // MariaDB's text names itself.
            Flavor::MariaDb => f.write_str(&self.text),
            Flavor::MySql => write!(f, "MySQL {}", self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_texts_of_both_families_are_read() {
        for (text, flavor, numbers) in [
            ("9.7.4-2", Flavor::MySql, (9, 7, 4)),
            ("8.0.36-28", Flavor::MySql, (8, 0, 36)),
            ("5.5.5-10.11.19-MariaDB-0+deb12u1-log", Flavor::MariaDb, (10, 11, 19)),
            ("11.8.6-MariaDB-0+deb13u1", Flavor::MariaDb, (11, 8, 6)),
            ("", Flavor::MySql, (0, 0, 0)),
            ("99999.1", Flavor::MySql, (0, 1, 0)),
        ] {
            let version = ServerVersion::parse(text);
            assert_eq!((version.flavor, version.numbers()), (flavor, numbers), "{text}");
        }
    }
}
