//! SIGHUP: the configuration is read again and holds from then on, while streams and jobs go on.
//!
//! A file that can't be used changes nothing. Keys that the process can't change while it runs keep their value until the
//! next start, and are named.

mod changes;

use crate::config::Config;
use crate::daemon::Daemon;
use crate::tokens::Tokens;
use holdfast_appliance::error::Result;
use holdfast_appliance::time::now;
use std::sync::Arc;

impl Daemon {
    /// Reads the configuration and the tokens again. Gives the names of the keys that were changed and wait for the next
    /// start.
    ///
    /// # Errors
    /// As [`Config::load`] and [`Tokens::load`]; then everything stays as it was.
    pub fn reload(&self) -> Result<Vec<&'static str>> {
        let outcome = self.read_again();
        self.reloads.note(outcome.is_ok(), now());
        let what = "read the configuration again";
        match outcome {
            Ok((waiting, changes)) => {
                self.audit.note("SIGHUP", &format!("{what}: {changes}"), "done")?;
                Ok(waiting)
            }
            Err(error) => {
                self.audit.note("SIGHUP", what, "refused")?;
                Err(error)
            }
        }
    }

    fn read_again(&self) -> Result<(Vec<&'static str>, String)> {
        let old = self.config();
        let read = Config::load(&old.file)?;
        let (new, waiting) = merged(&old, read.clone());
        let tokens = match &new.listen {
            Some(listen) => Tokens::load(&listen.tokens)?,
            None => Tokens::default(),
        };
        let changes = changes::words((&old, &self.tokens()), (&read, &tokens), &waiting);
        self.replace(Arc::new(new), Arc::new(tokens));
        Ok((waiting, changes))
    }
}

/// The new configuration with the old values of what can't change, and the names of those that differ.
fn merged(old: &Config, new: Config) -> (Config, Vec<&'static str>) {
    let mut waiting = Vec::new();
    let mut kept = new.clone();
    macro_rules! keep {
        ($($key:ident),*) => {$(
            if old.$key != new.$key {
                waiting.push(stringify!($key));
                kept.$key = old.$key.clone();
            }
        )*};
    }
    keep!(repository, passphrase_file, state, logins, socket, socket_mode, jobs, spool, log);
    match (&old.listen, &mut kept.listen) {
        // Tokens and the allow-list are asked at each request.
        (Some(old), Some(new)) => {
            let open = (&old.address, &old.certificate, &old.key);
            if open != (&new.address, &new.certificate, &new.key) {
                waiting.push("listen");
                (new.address, new.certificate, new.key) =
                    (old.address, old.certificate.clone(), old.key.clone());
            }
        }
        (None, None) => {}
        _ => {
            waiting.push("listen");
            kept.listen = old.listen.clone();
        }
    }
    (kept, waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdfast.toml");
        std::fs::write(&file, format!("passphrase_file = '/p'\n{text}")).unwrap();
        Config::load(&file).unwrap()
    }

    #[test]
    fn what_cant_change_keeps_its_value_and_is_named_and_the_rest_changes() {
        let old = read("repository = '/a'\n[policy.default]\nwindow = '7d'\n");
        let new = read("repository = '/b'\njobs = 5\nconnections = 7\n[policy.default]\nwindow = '14d'\n");
        let (merged, waiting) = merged(&old, new);
        assert_eq!(waiting, ["repository", "jobs"]);
        assert_eq!((merged.repository.to_str(), merged.jobs, merged.connections), (Some("/a"), 2, 7));
        assert_eq!(merged.policy_of("shop").1.window.to_string(), "14d");
    }

    #[test]
    fn of_the_door_to_the_network_only_tokens_and_allow_list_change() {
        let listen = |address: &str, tokens: &str, allow: &str| {
            read(&format!(
                "repository = '/a'\n[listen]\naddress = '{address}'\ncertificate = '/c'\nkey = '/k'\n\
                 tokens = '{tokens}'\nallow = [{allow}]\n"
            ))
        };
        let old = listen("127.0.0.1:1", "/t", "");
        let (kept, waiting) = merged(&old, listen("127.0.0.1:1", "/u", "'10.0.0.0/8'"));
        assert!(waiting.is_empty());
        let door = kept.listen.unwrap();
        assert_eq!((door.tokens.to_str(), door.allow.len()), (Some("/u"), 1));
        let (kept, waiting) = merged(&old, listen("127.0.0.1:2", "/t", ""));
        assert_eq!((waiting, kept.listen.unwrap().address.port()), (vec!["listen"], 1));
        let (kept, waiting) = merged(&old, read("repository = '/a'\n"));
        assert_eq!((waiting, kept.listen.is_some()), (vec!["listen"], true));
    }
}
