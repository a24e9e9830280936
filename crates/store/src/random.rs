//! Random bytes for keys, ids and nonces.

use crate::error::{Error, Result};

/// Random bytes from the operating system.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    getrandom::fill(&mut out).map_err(|e| Error::Random { why: e.to_string() })?;
    Ok(out)
}
