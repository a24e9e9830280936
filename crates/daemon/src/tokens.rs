//! Who may do what over the network: tokens with roles. The file holds their hashes only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_appliance::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

/// What a token begins with, so that scanners for leaked secrets know it.
const PREFIX: &str = "hft_";

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look, begin backups and checks, pause and resume, cancel.
    Operator,
    /// Look, plan and begin restores, cancel.
    Restorer,
    /// Everything.
    Admin,
}

impl Role {
    /// Whether this role may do what asks for `needed`. Backups and restores are two trades.
    #[must_use]
    pub fn may(self, needed: Self) -> bool {
        self == needed || self == Self::Admin || needed == Self::Viewer
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "restorer" => Ok(Self::Restorer),
            "admin" => Ok(Self::Admin),
            _ => Err(format!("'{text}' is not a role; use viewer, operator, restorer or admin")),
        }
    }
}

/// One token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    hash: String,
}

/// All tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    #[serde(default, rename = "token")]
    entries: Vec<Entry>,
}

/// A caller whose token is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's name, or the user behind the socket.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// He showed a token: no other one has his name.
    pub by_token: bool,
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// `Usage` with the file's name; never with its content.
    pub fn load(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::usage(format!("The tokens in {} can't be read: {error}.", file.display()))
                .with_next("make one: holdfastd token NAME --role viewer")
        })?;
        let tokens: Self = toml::from_str(&text).map_err(|error| {
            Error::usage(format!("The file {} is not valid: {}", file.display(), error.message()))
        })?;
        for entry in &tokens.entries {
            if blake3::Hash::from_hex(&entry.hash).is_err() {
                return Err(Error::usage(format!(
                    "The hash of the token '{}' in {} is not one.",
                    entry.name,
                    file.display()
                )));
            }
        }
        Ok(tokens)
    }

    /// Each token's name, role and hash.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Role, &str)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), &entry.role, entry.hash.as_str()))
    }

    /// Whose token this is.
    #[must_use]
    pub fn caller(&self, token: &str) -> Option<Caller> {
        let hash = blake3::hash(token.as_bytes());
        // All are compared, each in constant time: an answer's time tells nothing.
        let fits = |e: &&Entry| blake3::Hash::from_hex(&e.hash).is_ok_and(|known| known == hash);
        let found: Vec<&Entry> = self.entries.iter().filter(fits).collect();
        found.first().map(|e| Caller { name: e.name.clone(), role: e.role, by_token: true })
    }
}

/// A new token, and the lines for the file that let it in.
///
/// # Errors
/// `Failed` when the system gives no random bytes.
pub fn fresh(name: &str, role: Role) -> Result<(Zeroizing<String>, String)> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|error| Error::failed(format!("The system gave no random bytes: {error}.")))?;
    let token = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())));
    let hash = blake3::hash(token.as_bytes()).to_hex().to_string();
    let tokens = Tokens { entries: vec![Entry { name: name.to_owned(), role, hash }] };
    let lines = toml::to_string(&tokens)
        .map_err(|error| Error::failed(format!("The token can't be written: {error}.")))?;
    Ok((token, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens.toml");
        let (one, first) = fresh("grafana", Role::Viewer).unwrap();
        let (two, second) = fresh("ops", Role::Operator).unwrap();
        std::fs::write(&file, format!("{first}{second}")).unwrap();
        let tokens = Tokens::load(&file).unwrap();
        assert_eq!(
            tokens.caller(&two),
            Some(Caller { name: "ops".into(), role: Role::Operator, by_token: true })
        );
        assert_eq!(tokens.caller(&one).unwrap().role, Role::Viewer);
        assert_eq!(tokens.caller(&one[..one.len() - 1]), None);
        assert_eq!(tokens.caller(""), None);
        assert!(!std::fs::read_to_string(&file).unwrap().contains(one.as_str()));
    }

    #[test]
    fn each_role_may_do_its_own_trade_and_look() {
        use Role::{Admin, Operator, Restorer, Viewer};
        let all = [Viewer, Operator, Restorer, Admin];
        let may = |role: Role| all.map(|needed| role.may(needed));
        assert_eq!(may(Viewer), [true, false, false, false]);
        assert_eq!(may(Operator), [true, true, false, false]);
        assert_eq!(may(Restorer), [true, false, true, false]);
        assert_eq!(may(Admin), [true; 4]);
    }
}
