//! `report`: the reports of restores and drills that the repository keeps, and their signatures.
//!
//! A kept report is one JSON object, whose last member is the signature of everything before it. So it can be given away
//! as a file, and checked by somebody who has nothing but the public key.

use crate::catalogue::Catalogue;
use crate::error::{Code, Error, Result};
use crate::time::{Micros, now, show_time};
use crate::views::time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_format::ids::hex;
use holdfast_format::record::{Record, ReportRecord, Stamped};
use holdfast_store::{PublicKey, Signed, is_signed};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What stands in front of the signature. A string can't hold it: its quotes would be escaped.
const MARK: &str = ",\"signed\":{";
/// Bytes of an Ed25519 public key before the key, as a SubjectPublicKeyInfo has them (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// A kept report.
#[derive(Clone, Debug, Serialize)]
pub struct ReportView {
    /// Its number in the repository.
    pub number: u64,
    /// When it was kept.
    #[serde(serialize_with = "time")]
    pub at: Micros,
    /// `drill` or `restore`.
    pub kind: String,
    /// The server's name.
    pub server: String,
    /// That server was removed; one that has its name now is another one.
    pub removed: bool,
    /// The moment that was restored.
    pub target: String,
    /// Whether every check that was made ended well.
    pub proved: bool,
    /// `good`; `none`: it was kept by a version that signed nothing; `other key`: good, by a key that the repository does not
    /// have any more; `bad`.
    pub signature: &'static str,
}

/// A signing key's public half.
#[derive(Clone, Debug, Serialize)]
pub struct KeyView {
    /// Generation of the repository's key that it comes from; the newest signs.
    pub generation: u32,
    /// The key, hexadecimal.
    pub key: String,
    /// The same as other programs read it.
    pub pem: String,
}

/// A report whose signature is good.
#[derive(Clone, Debug, Serialize)]
pub struct VerifiedView {
    /// The file, or the number in the repository.
    pub report: String,
    /// `drill` or `restore`.
    pub kind: String,
    /// The server's name.
    pub server: String,
    /// When it was kept, RFC 3339.
    pub kept: String,
    /// The moment that was restored.
    pub target: String,
    /// Whether every check that was made ended well: a good signature says nothing of that.
    pub proved: bool,
    /// The key that signed it, hexadecimal.
    pub key: String,
}

/// The bytes of a report as they are kept: with what it is a report of, and signed.
///
/// # Errors
/// When it is no JSON object, or nothing can be sealed.
pub(crate) fn seal<T: Serialize>(
    catalogue: &Catalogue,
    report: &T,
    (kind, job): (&str, Option<&str>),
    at: Micros,
) -> Result<Vec<u8>> {
    let failed = |why: &dyn std::fmt::Display| Error::failed(format!("The report can't be written: {why}."));
    let Value::Object(members) = serde_json::to_value(report).map_err(|error| failed(&error))? else {
        return Err(failed(&"it is no object"));
    };
    let mut whole = Map::new();
    whole.insert("kind".to_owned(), kind.into());
    whole.insert("repository".to_owned(), catalogue.repository.id().to_string().into());
    whole.insert("kept".to_owned(), show_time(at).into());
    if let Some(job) = job {
        whole.insert("job".to_owned(), job.into());
    }
    whole.extend(members);
    let plain = serde_json::to_vec(&whole).map_err(|error| failed(&error))?;
    let signed = catalogue.repository.sign(&plain).map_err(|error| catalogue.store_error(error))?;
    Ok(joined(plain, &signed))
}

/// The object with the signature as its last member.
fn joined(mut plain: Vec<u8>, signed: &Signed) -> Vec<u8> {
    plain.pop();
    let (key, signature) = (hex(&signed.key), hex(&signed.signature));
    let tail = format!("{MARK}\"algorithm\":\"ed25519\",\"key\":\"{key}\",\"signature\":\"{signature}\"}}}}");
    plain.extend_from_slice(tail.as_bytes());
    plain
}

/// What a kept report says, and who signed it; none: nobody did.
fn taken_apart(bytes: &[u8]) -> std::result::Result<(Vec<u8>, Option<Signed>), &'static str> {
    let mark = bytes.windows(MARK.len()).rposition(|window| window == MARK.as_bytes());
    let Some((plain, tail)) = mark.and_then(|at| bytes.split_at_checked(at)) else {
        return Ok((bytes.to_vec(), None));
    };
    let text = |name: &str| {
        let tail: Value =
            serde_json::from_slice(tail.get(MARK.len() - 1..tail.len().checked_sub(1)?)?).ok()?;
        tail.get(name)?.as_str().map(str::to_owned)
    };
    let (Some(key), Some(signature)) = (text("key"), text("signature")) else {
        return Err("its signature can't be read");
    };
    let (Some(key), Some(signature)) = (unhex(&key), unhex(&signature)) else {
        return Err("its signature can't be read");
    };
    let signed = Signed { key, signature };
    let mut plain = plain.to_vec();
    plain.push(b'}');
    // Whatever else stands there was not signed.
    if joined(plain.clone(), &signed) != bytes {
        return Err("there is more in it than was signed");
    }
    Ok((plain, Some(signed)))
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Checks one report against the keys that are trusted; `what` is what a message calls it.
///
/// # Errors
/// `Corruption` when it is not signed, not as it was signed, or signed by another key.
pub fn verify(bytes: &[u8], what: &str, trusted: &[PublicKey]) -> Result<VerifiedView> {
    let refuse =
        |why: &str| Error::new(Code::Corruption, format!("The report {what} is not to be believed: {why}."));
    let bytes = bytes.trim_ascii_end();
    let (plain, signed) = taken_apart(bytes).map_err(refuse)?;
    let signed = signed.ok_or_else(|| {
        refuse("it is not signed")
            .with_next("reports that older versions kept are not; a drill now makes one that is")
    })?;
    let key = hex(&signed.key);
    if !is_signed(&plain, &signed) {
        return Err(refuse(&format!("it is not what the key {key} signed"))
            .with_next("get it again: holdfast report show NUMBER --out FILE"));
    }
    if !trusted.contains(&signed.key) {
        return Err(refuse(&format!("it was signed by another key, {key}"))
            .with_next("name the key of that time with --public-key: a rotation of the repository's keys makes a new one"));
    }
    let json: Value = serde_json::from_slice(&plain).map_err(|error| refuse(&error.to_string()))?;
    let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(VerifiedView {
        report: what.to_owned(),
        kind: text("/kind"),
        server: text("/server"),
        kept: text("/kept"),
        target: text("/plan/target"),
        proved: json.get("proved").and_then(Value::as_bool).unwrap_or(false),
        key,
    })
}

fn kept(catalogue: &Catalogue) -> Vec<Arc<Stamped>> {
    let mut records = catalogue.repository.records();
    records.retain(|stamped| matches!(stamped.record, Record::Report(_)));
    records
}

fn of(stamped: &Stamped) -> Option<&ReportRecord> {
    if let Record::Report(report) = &stamped.record { Some(report) } else { None }
}

/// The reports of one server or of all, oldest first.
///
/// # Errors
/// When a signing key can't be made.
pub fn list(catalogue: &Catalogue, name: Option<&str>) -> Result<Vec<ReportView>> {
    let (keys, servers) = (trusted(catalogue)?, catalogue.servers());
    let view = |stamped: &Arc<Stamped>| {
        let report = of(stamped)?;
        // One that can't be read is counted among the bad ones.
        let json: Value = serde_json::from_slice(&report.json).unwrap_or_default();
        let text =
            |pointer: &str| json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let server = text("/server");
        if name.is_some_and(|name| name != server) {
            return None;
        }
        let now = servers.iter().find(|known| known.name == server);
        Some(ReportView {
            number: stamped.number,
            at: report.at_us,
            kind: report.kind.clone(),
            removed: now.is_none_or(|now| report.at_us < now.added_us),
            server,
            target: text("/plan/target"),
            proved: json.get("proved").and_then(Value::as_bool).unwrap_or(false),
            signature: if json.is_null() { "bad" } else { signature(&report.json, &keys) },
        })
    };
    Ok(kept(catalogue).iter().filter_map(view).collect())
}

fn signature(bytes: &[u8], trusted: &[PublicKey]) -> &'static str {
    match taken_apart(bytes) {
        Ok((_, None)) => "none",
        Ok((plain, Some(signed))) if is_signed(&plain, &signed) => {
            if trusted.contains(&signed.key) {
                "good"
            } else {
                "other key"
            }
        }
        _ => "bad",
    }
}

/// One kept report, byte for byte.
///
/// # Errors
/// `Usage` when there is none of that number.
pub fn show(catalogue: &Catalogue, number: u64) -> Result<Vec<u8>> {
    let found = kept(catalogue).into_iter().find(|stamped| stamped.number == number);
    found.as_deref().and_then(of).map(|report| report.json.clone()).ok_or_else(|| {
        Error::usage(format!("There is no report {number} in {}.", catalogue.place.display()))
            .with_next("see what there is: holdfast report list")
    })
}

/// The report of a job that came to a verdict, if it did: whoever began the job did not live to see it.
///
/// # Errors
/// `ProofFailed` where the verdict was no; when the repository can't be read.
pub fn of_job(catalogue: &Catalogue, kind: &str, job: &str) -> Result<Option<Value>> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let found = kept(catalogue).iter().rev().find_map(|stamped| {
        let report = of(stamped).filter(|report| report.kind == kind)?;
        let json: Value = serde_json::from_slice(&report.json).ok()?;
        (json.get("job").and_then(Value::as_str) == Some(job)).then_some((stamped.number, json))
    });
    let Some((number, json)) = found else { return Ok(None) };
    if json.get("proved").and_then(Value::as_bool) == Some(true) {
        return Ok(Some(json));
    }
    Err(Error::new(Code::ProofFailed, "What this job restored was not proved; then the daemon ended.")
        .with_next(format!("see why: holdfast report show {number}")))
}

/// The public keys of what is signed here, the newest first: programs that read one key of a file take the first.
///
/// # Errors
/// When a key can't be made.
pub fn keys(catalogue: &Catalogue) -> Result<Vec<KeyView>> {
    let keys = catalogue.repository.public_keys().map_err(|error| catalogue.store_error(error))?;
    Ok(keys
        .iter()
        .rev()
        .map(|(generation, key)| KeyView { generation: *generation, key: hex(key), pem: pem(key) })
        .collect())
}

/// The same, to check with.
///
/// # Errors
/// As [`keys`].
pub fn trusted(catalogue: &Catalogue) -> Result<Vec<PublicKey>> {
    let keys = catalogue.repository.public_keys().map_err(|error| catalogue.store_error(error))?;
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

fn pem(key: &PublicKey) -> String {
    let mut bytes = SPKI.to_vec();
    bytes.extend_from_slice(key);
    format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(bytes))
}

/// The keys of a file: PEM as [`keys`] gives it, any number of it; or 64 hexadecimal digits a line.
///
/// # Errors
/// `Usage` when there is none in it.
pub fn read_keys(text: &str, file: &str) -> Result<Vec<PublicKey>> {
    let pem = text.split(PEM_BEGIN).skip(1).filter_map(|part| {
        let (digits, _) = part.split_once(PEM_END)?;
        let bytes = STANDARD.decode(digits.split_ascii_whitespace().collect::<String>()).ok()?;
        bytes.strip_prefix(&SPKI)?.try_into().ok()
    });
    let found: Vec<PublicKey> = pem.chain(text.lines().filter_map(|line| unhex(line.trim()))).collect();
    if found.is_empty() {
        return Err(Error::usage(format!("There is no Ed25519 public key in {file}."))
            .with_next("make the file where the repository is: holdfast report key --out FILE"));
    }
    Ok(found)
}

/// Keeps a report with its backup, signed; `job`: what a daemon calls the job that it is of.
///
/// # Errors
/// When the repository can't be written.
pub(crate) fn keep<T: Serialize>(
    catalogue: &Catalogue,
    backup: holdfast_format::ids::BackupId,
    report: &T,
    kind: &str,
    job: Option<&str>,
) -> Result<()> {
    let at_us = now();
    let json = seal(catalogue, report, (kind, job), at_us)?;
    let record = Record::Report(ReportRecord { backup, kind: kind.into(), at_us, json });
    catalogue.repository.append(record).map(drop).map_err(|error| catalogue.store_error(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, 7.1, test 1: the signature of nothing. What it is of is not looked at here.
    fn signed() -> Signed {
        let key = unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        Signed { key, signature: unhex(signature).unwrap() }
    }

    #[test]
    fn what_was_signed_comes_apart_again_and_what_was_added_is_noticed() {
        let plain = br#"{"kind":"drill","note":"a ,\"signed\":{ in a text"}"#.to_vec();
        let whole = joined(plain.clone(), &signed());
        serde_json::from_slice::<Value>(&whole).unwrap();
        assert_eq!(taken_apart(&whole).unwrap(), (plain.clone(), Some(signed())));
        assert_eq!(taken_apart(&plain).unwrap(), (plain, None));
        // Every single byte that is changed is a byte of what was signed, of the signature, or of neither.
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            match taken_apart(&changed) {
                Ok((_, Some(other))) if other == signed() => assert!(at < whole.len() - 240, "byte {at}"),
                _ => {}
            }
        }
        let text = String::from_utf8(whole).unwrap();
        for more in [
            text.replace("\"algorithm\"", "\"more\":1,\"algorithm\""),
            text.replace("ed25519", "none"),
            text.replace("\"}}", "\" }}"),
            text.replace("d75a", "D75A"),
        ] {
            assert_ne!(more, text);
            assert!(taken_apart(more.as_bytes()).is_err(), "{more}");
        }
    }

    #[test]
    fn a_key_that_was_written_is_read_and_nothing_else_is_one() {
        let key = signed().key;
        let two = format!("generation 1\n{}generation 2, newest\n{}", pem(&key), pem(&[7; 32]));
        assert_eq!(read_keys(&two, "f").unwrap(), [key, [7; 32]]);
        assert_eq!(read_keys(&hex(&key), "f").unwrap(), [key]);
        for wrong in ["", "d75a", &pem(&key).replace("MCow", "MCoy"), &hex(&key).replace('d', "g")] {
            assert!(read_keys(wrong, "the file").unwrap_err().message.contains("the file"), "{wrong}");
        }
    }
}
