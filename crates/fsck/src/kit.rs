//! The recovery kit: a printed text that opens a repository even if no copy of its keyring is left.

use holdfast_format::codec::Reader;
use holdfast_format::ids::RepoId;
use holdfast_format::keyring::Secrets;

const BEGIN: &str = "-----BEGIN HOLDFAST RECOVERY KIT-----";
const END: &str = "-----END HOLDFAST RECOVERY KIT-----";

/// What a kit holds.
pub struct Kit {
    /// The repository that it opens.
    pub(crate) repo: RepoId,
    /// Opens the secrets of the keyring.
    pub(crate) unlock: [u8; 32],
    /// The secrets as they were when the kit was printed.
    pub(crate) secrets: Secrets,
}

impl Kit {
    /// Reads a kit's text: between its two lines hexadecimal digits of version, repository, unlock key, secrets and
    /// eight bytes of BLAKE3 over all that. Spaces, line breaks and case do not matter.
    pub fn read(text: &str) -> Result<Self, String> {
        let (_, rest) = text.split_once(BEGIN).ok_or("its first line is missing")?;
        let (body, _) = rest.split_once(END).ok_or("its last line is missing")?;
        let digits = body.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16));
        let digits: Vec<u32> =
            digits.collect::<Option<_>>().ok_or("it has a character that is no hexadecimal digit")?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => u8::try_from(high * 16 + low).ok(),
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or("a digit is missing")?;
        let (body, check) = bytes.split_last_chunk::<8>().ok_or("digits are missing")?;
        if blake3::hash(body).as_bytes().first_chunk::<8>() != Some(check) {
            return Err("a digit is wrong".to_owned());
        }
        let mut r = Reader::new("recovery kit", body);
        let mut read = || -> holdfast_format::Result<Self> {
            r.version(holdfast_format::VERSION)?;
            Ok(Self { repo: RepoId(r.array()?), unlock: r.array()?, secrets: Secrets::decode(r.rest())? })
        };
        read().map_err(|e| e.to_string())
    }
}
