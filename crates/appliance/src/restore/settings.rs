//! `--with-config` and `--set`.

use crate::catalogue::sentence;
use crate::error::{Error, Result};

/// What the restored server is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// As the source was set.
    pub of_source: bool,
    /// Names and values that count more.
    pub set: Vec<(String, String)>,
}

impl Settings {
    /// Reads `--with-config` and each `--set NAME=VALUE`; none where there are neither.
    ///
    /// # Errors
    /// `Usage` with what is wrong.
    pub fn parse(of_source: bool, set: &[String]) -> Result<Option<Self>> {
        let read = |text: &String| {
            holdfast_restore::config::parse_set(text).map_err(|why| {
                Error::usage(sentence(&why))
                    .with_next("write --set NAME=VALUE, such as --set max_connections=500")
            })
        };
        let set = set.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok((of_source || !set.is_empty()).then_some(Self { of_source, set }))
    }
}
