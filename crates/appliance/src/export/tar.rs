//! A folder as one tar archive (POSIX ustar, with pax headers where a name or a length does not fit).
//!
//! Sparse files are written in full: whatever reads tar reads it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const BLOCK: usize = 512;

/// The largest length that the header's eleven octal digits hold.
const LENGTH_MAX: u64 = 0o777_7777_7777;

/// Bytes of a header's name.
const NAME_BYTES: usize = 100;

/// Writes everything below `folder` to `out`, names relative to it, in the order of the names; `more` is told of each
/// piece's bytes, and says whether to go on. Gives the entries written. Sockets and devices are left out.
///
/// # Errors
/// `Interrupted` when `more` says no; else whatever reading or writing failed with.
pub(super) fn write(
    folder: &Path,
    out: &mut dyn Write,
    more: &mut dyn FnMut(u64) -> bool,
) -> io::Result<u64> {
    let mut entries = 0;
    let mut ahead: Vec<PathBuf> = below(folder, Path::new(""))?;
    while let Some(path) = ahead.pop() {
        let full = folder.join(&path);
        let facts = fs::symlink_metadata(&full)?;
        let name = path.as_os_str().as_bytes();
        if facts.is_dir() {
            ahead.extend(below(folder, &path)?);
            let name = [name, b"/"].concat();
            header(out, &Entry { name: &name, link: b"", kind: b'5', len: 0, facts: &facts })?;
        } else if facts.is_symlink() {
            let link = fs::read_link(&full)?;
            let link = link.as_os_str().as_bytes();
            header(out, &Entry { name, link, kind: b'2', len: 0, facts: &facts })?;
        } else if facts.is_file() {
            header(out, &Entry { name, link: b"", kind: b'0', len: facts.len(), facts: &facts })?;
            content(&full, facts.len(), out, more)?;
        } else {
            continue;
        }
        entries += 1;
    }
    out.write_all(&[0; 2 * BLOCK])?;
    Ok(entries)
}

/// The names in a folder, the last one first.
fn below(folder: &Path, path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder.join(path))?;
    let mut found = entries.map(|e| Ok(path.join(e?.file_name()))).collect::<io::Result<Vec<_>>>()?;
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

struct Entry<'a> {
    name: &'a [u8],
    link: &'a [u8],
    kind: u8,
    len: u64,
    facts: &'a fs::Metadata,
}

fn header(out: &mut dyn Write, entry: &Entry<'_>) -> io::Result<()> {
    let mut records = Vec::new();
    if entry.name.len() > NAME_BYTES || !entry.name.is_ascii() {
        records.extend(record(b"path", entry.name));
    }
    if entry.link.len() > NAME_BYTES || !entry.link.is_ascii() {
        records.extend(record(b"linkpath", entry.link));
    }
    if entry.len > LENGTH_MAX {
        records.extend(record(b"size", entry.len.to_string().as_bytes()));
    }
    if !records.is_empty() {
        let name = [b"PaxHeaders/".as_slice(), entry.name].concat();
        let len = records.len() as u64;
        out.write_all(&block(&Entry { name: &name, link: b"", kind: b'x', len, facts: entry.facts }))?;
        out.write_all(&records)?;
        pad(out, len)?;
    }
    out.write_all(&block(entry))
}

/// A pax record: its own length, a key and a value.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut len = rest + 1;
    while rest + len.to_string().len() > len {
        len += 1;
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn block(entry: &Entry<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut at = 0;
    let mut field = |width: usize, bytes: &[u8]| {
        if let Some(place) = block.get_mut(at..at + width) {
            place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        }
        at += width;
    };
    let facts = entry.facts;
    let octal = |value: u64, digits: usize| format!("{value:0digits$o}");
    // What does not fit stands in a pax record, but for owners of more than seven digits, which nobody has to keep.
    let owner = |id: u32| octal(u64::from(id).min(0o777_7777), 7);
    field(NAME_BYTES, entry.name);
    field(8, octal(u64::from(facts.mode() & 0o7777), 7).as_bytes());
    field(8, owner(facts.uid()).as_bytes());
    field(8, owner(facts.gid()).as_bytes());
    field(12, octal(if entry.len > LENGTH_MAX { 0 } else { entry.len }, 11).as_bytes());
    field(12, octal(u64::try_from(facts.mtime()).unwrap_or(0).min(LENGTH_MAX), 11).as_bytes());
    field(8, b"        ");
    field(1, &[entry.kind]);
    field(NAME_BYTES, entry.link);
    field(8, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    if let Some(place) = block.get_mut(148..156) {
        place.iter_mut().zip(sum.as_bytes()).for_each(|(to, from)| *to = *from);
    }
    block
}

fn pad(out: &mut dyn Write, len: u64) -> io::Result<()> {
    let over = usize::try_from(len % BLOCK as u64).unwrap_or(0);
    out.write_all([0; BLOCK].get(over..).filter(|_| over > 0).unwrap_or_default())
}

fn content(path: &Path, len: u64, out: &mut dyn Write, more: &mut dyn FnMut(u64) -> bool) -> io::Result<()> {
    let (mut file, mut left) = (File::open(path)?, len);
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact(piece)?;
        out.write_all(piece)?;
        left -= want as u64;
        if !more(want as u64) {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    pad(out, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_record_counts_its_own_digits() {
        for value in [0, 1, 80, 90, 91, 92, 93, 94, 95, 990, 991, 992] {
            let record = record(b"path", &vec![b'x'; value]);
            let text = String::from_utf8(record.clone()).unwrap();
            assert_eq!(text.split_once(' ').unwrap().0.parse::<usize>().unwrap(), record.len());
        }
    }

    /// The system's own tar takes it apart again.
    #[test]
    fn tar_unpacks_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, file) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("it.tar"));
        fs::create_dir_all(from.join("a/empty")).unwrap();
        fs::create_dir(&to).unwrap();
        let long = "n".repeat(180);
        for (name, bytes) in [
            ("a/plain", b"x".repeat(1000)),
            ("a/block", b"y".repeat(512)),
            ("nothing", Vec::new()),
            ("a/sch\u{f6}n", b"z".to_vec()),
            (long.as_str(), b"long".to_vec()),
        ] {
            fs::write(from.join(name), bytes).unwrap();
        }
        std::os::unix::fs::symlink("a/plain", from.join("link")).unwrap();
        let mut bytes = Vec::new();
        assert_eq!(write(&from, &mut bytes, &mut |_| true).unwrap(), 8);
        assert_eq!(bytes.len() % BLOCK, 0);
        fs::write(&file, bytes).unwrap();
        let status = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&to).status().unwrap();
        assert!(status.success());
        let status = Command::new("diff").arg("-r").arg(&from).arg(&to).status().unwrap();
        assert!(status.success());
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("a/plain"));
    }
}
