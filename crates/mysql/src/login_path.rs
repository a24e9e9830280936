//! `.mylogin.cnf`: the option file that `mysql_config_editor` keeps, scrambled against curious eyes (its key lies in it).
//!
//! Layout, as observed on files of MySQL 9.7: 4 unused bytes, 20 bytes from which the AES-128 key is folded, then for
//! each line a u32 length (little endian) and that many bytes of AES-128 in ECB mode with PKCS #7 padding.

use std::path::Path;

use aws_lc_rs::cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use zeroize::Zeroizing;

use crate::credentials::{ClientOptions, parse_options, read_bounded};
use crate::error::{Error, Result};

/// Longest file: a thousand login paths of a few lines each.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Longest line. MySQL's own reader takes 4096 bytes.
const LINE_BYTES_MAX: usize = 4096;

const HEADER_LEN: usize = 4;
const KEY_BYTES: usize = 20;

/// Reads one login path of a file; those that it does not have give nothing.
pub fn read_login_path(file: &Path, login_path: &str) -> Result<ClientOptions> {
    parse_login_path(&read_bounded(file, FILE_BYTES_MAX)?, file, login_path)
}

/// Reads one login path out of a file's bytes; `file` names it in errors.
pub fn parse_login_path(bytes: &[u8], file: &Path, login_path: &str) -> Result<ClientOptions> {
    let text = unscramble(bytes)
        .map_err(|reason| Error::File { path: file.to_owned(), reason: reason.to_owned() })?;
    parse_options(&text, file, &[login_path])
}

fn unscramble(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    const CUT: &str = "is cut short, or not a file of mysql_config_editor";
    let (seed, mut rest) =
        bytes.get(HEADER_LEN..).and_then(|bytes| bytes.split_at_checked(KEY_BYTES)).ok_or(CUT)?;
    let mut key = Zeroizing::new([0u8; 16]);
    for (at, byte) in seed.iter().enumerate() {
        if let Some(slot) = key.get_mut(at % 16) {
            *slot ^= byte;
        }
    }
    let mut text = Zeroizing::new(Vec::new());
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk::<4>().ok_or(CUT)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| CUT)?;
        if len > LINE_BYTES_MAX {
            return Err(CUT);
        }
        let (line, tail) = tail.split_at_checked(len).ok_or(CUT)?;
        rest = tail;
        let mut line = Zeroizing::new(line.to_vec());
        let cipher = UnboundCipherKey::new(&AES_128, key.as_slice()).map_err(|_| CUT)?;
        let plain = PaddedBlockDecryptingKey::ecb_pkcs7(cipher)
            .and_then(|key| key.decrypt(&mut line, DecryptionContext::None))
            .map_err(|_| CUT)?;
        text.extend_from_slice(plain);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECORDED: &[u8] = include_bytes!("../testdata/mylogin.cnf");

    #[test]
    fn a_file_of_mysql_config_editor_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mylogin.cnf");
        std::fs::write(&file, RECORDED).unwrap();
        let options = read_login_path(&file, "shop").unwrap();
        assert_eq!(options.user.as_deref(), Some("bk"));
        assert_eq!((options.host.as_deref(), options.port), (Some("db1"), Some(3307)));
        assert!(read_login_path(&file, "other").unwrap().user.is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_text_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..120), cut in 0usize..110) {
            let _ = unscramble(&bytes);
            let _ = unscramble(&RECORDED[..cut.min(RECORDED.len())]);
        }
    }
}
