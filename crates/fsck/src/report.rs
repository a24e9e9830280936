//! What a check found, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::check::Scope;
use crate::progress::{duration, size};

/// Flaws kept one by one; the rest is counted. A dead disk gives one for each frame, and nobody reads them all.
pub const FLAWS_KEPT_MAX: usize = 1000;
/// Files named for one damaged backup; the rest is counted.
pub const FILES_NAMED_MAX: usize = 20;

/// Something that is wrong with the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// The object in which it is.
    pub object: String,
    /// Where in it, bytes, if one place can be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What cannot be restored, or only in part, because of it: one sentence each. Empty: nothing that a restore
    /// reads, or another copy serves.
    pub affects: Vec<String>,
}

/// Something worth knowing that is not wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The object in which it is.
    pub object: String,
    /// What it is.
    pub what: String,
}

/// A backup and what of it would come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupVerdict {
    /// Its id.
    pub id: String,
    /// The server's name.
    pub server: String,
    /// When it was begun, RFC 3339.
    pub started: String,
    /// Files it holds.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// True if each block of each file is there, and right as far as it was read: all of them in a full check.
    pub whole: bool,
    /// Files that would not come back whole; at most [`FILES_NAMED_MAX`].
    pub damaged: Vec<String>,
    /// How many there are.
    pub damaged_count: u64,
}

/// A stream of log and the stretches it covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamVerdict {
    /// The server's name and its incarnation.
    pub stream: String,
    /// Segments of it.
    pub segments: u64,
    /// From where to where, for people.
    pub covers: String,
    /// Stretches that are missing or damaged, one sentence each.
    pub breaks: Vec<String>,
}

/// A stretch of a server's history each transaction of which can be restored to: a whole backup, and log without a hole
/// behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The server's name.
    pub server: String,
    /// The life of its log: rises with each reset of the source.
    pub life: u32,
    /// The first whole backup in it.
    pub backup: String,
    /// How many whole backups lead into it.
    pub backups: u64,
    /// The first place that a restore can end at.
    pub from: String,
    /// When that backup was complete, RFC 3339.
    pub from_time: String,
    /// The last place; `now` while the log is being written.
    pub to: String,
    /// Commit time of the last transaction in a sealed segment, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_time: Option<String>,
}

/// A stretch that no restore can end in, though a backup that is wanted or log on either side of it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// The server's name.
    pub server: String,
    /// The last place before it.
    pub from: String,
    /// The first place behind it.
    pub to: String,
    /// Why.
    pub why: String,
}

/// Counts of what was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Copies of the keyring that are right, of three.
    pub keyrings: u64,
    /// Heads that are right.
    pub heads: u64,
    /// Records of the manifest.
    pub records: u64,
    /// Sessions, dead or alive.
    pub sessions: u64,
    /// Sessions whose process lives.
    pub sessions_alive: u64,
    /// Segments of blocks, maps and log.
    pub segments: u64,
    /// Frames opened and checked.
    pub frames: u64,
    /// Segments that no record reaches: leftovers of crashes, or work of live sessions.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Segments that only forgotten backups need: a prune decides on them.
    pub forgotten: u64,
    /// Their bytes.
    pub forgotten_bytes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes of plaintext that the frames held.
    pub plain_bytes: u64,
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of this document's shape.
    pub schema: u32,
    /// The repository's id.
    pub repository: String,
    /// How much was read.
    pub scope: Scope,
    /// True if nothing is wrong with what was read.
    pub clean: bool,
    /// What was read.
    pub counts: Counts,
    /// What is wrong.
    pub flaws: Vec<Flaw>,
    /// How many flaws there are beyond those in `flaws`.
    pub flaws_more: u64,
    /// What is worth knowing.
    pub notes: Vec<Note>,
    /// Each backup.
    pub backups: Vec<BackupVerdict>,
    /// Each stream of log.
    pub streams: Vec<StreamVerdict>,
    /// What can be restored to, as far as was read.
    pub windows: Vec<Window>,
    /// What lies between. A hole need not be a flaw: a source that purged its log too early leaves one.
    pub holes: Vec<Hole>,
    /// How long the check took, milliseconds.
    pub took_ms: u64,
}

impl Report {
    /// Adds a flaw, or counts it when too many are known already.
    pub(crate) fn flaw(&mut self, flaw: Flaw) {
        if self.flaws.len() < FLAWS_KEPT_MAX {
            self.flaws.push(flaw);
        } else {
            self.flaws_more = self.flaws_more.saturating_add(1);
        }
    }

    /// How many flaws there are.
    #[must_use]
    pub fn flaw_count(&self) -> u64 {
        self.flaws_more.saturating_add(self.flaws.len() as u64)
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write_counts(&mut out);
        self.write_streams(&mut out);
        for note in &self.notes {
            let _ = writeln!(out, "note       {}: {}", note.object, note.what);
        }
        for flaw in &self.flaws {
            let at = flaw.offset.map_or(String::new(), |o| format!(" at byte {}", grouped(o)));
            let _ = writeln!(out, "BAD        {}{at}: {}", flaw.object, flaw.what);
            for affected in &flaw.affects {
                let _ = writeln!(out, "           affects {affected}");
            }
        }
        if self.flaws_more > 0 {
            let _ = writeln!(out, "           and {} flaws more", grouped(self.flaws_more));
        }
        self.write_backups(&mut out);
        self.write_windows(&mut out);
        self.write_end(&mut out);
        out
    }

    fn write_counts(&self, out: &mut String) {
        let c = &self.counts;
        let _ = writeln!(out, "repository {}", self.repository);
        let _ = writeln!(out, "keyring    {} of 3 copies", c.keyrings);
        let _ = writeln!(out, "manifest   {}, {} of 2 heads", counted(c.records, "record"), c.heads);
        let _ = writeln!(
            out,
            "segments   {} with {}, {} read",
            grouped(c.segments),
            counted(c.frames, "frame"),
            size(c.bytes)
        );
        let alive =
            if c.sessions_alive > 0 { format!(", {} alive", c.sessions_alive) } else { String::new() };
        let _ = writeln!(out, "sessions   {}{alive}", c.sessions);
        let orphans = if c.orphans > 0 { format!(" ({})", size(c.orphan_bytes)) } else { String::new() };
        let _ = writeln!(out, "orphans    {}{orphans}", c.orphans);
        if c.forgotten > 0 {
            let (count, bytes) = (c.forgotten, size(c.forgotten_bytes));
            let _ = writeln!(
                out,
                "prune's    {count} ({bytes}) that only forgotten backups or bases of deltas need"
            );
        }
    }

    fn write_streams(&self, out: &mut String) {
        for stream in &self.streams {
            let verdict = if stream.breaks.is_empty() { "contiguous" } else { "BROKEN" };
            let segments = counted(stream.segments, "segment");
            let _ = writeln!(out, "log        {} {}: {segments}, {verdict}", stream.stream, stream.covers);
            for flaw in &stream.breaks {
                let _ = writeln!(out, "           {flaw}");
            }
        }
    }

    fn write_backups(&self, out: &mut String) {
        for backup in &self.backups {
            let verdict = if backup.whole { "whole".to_owned() } else { "DAMAGED".to_owned() };
            let _ = writeln!(
                out,
                "backup     {} {} {}: {}, {}, {verdict}",
                backup.id,
                backup.server,
                backup.started,
                counted(backup.files, "file"),
                size(backup.bytes)
            );
            for file in &backup.damaged {
                let _ = writeln!(out, "           damaged: {file}");
            }
            let more = backup.damaged_count.saturating_sub(backup.damaged.len() as u64);
            if more > 0 {
                let _ = writeln!(out, "           and {} more", counted(more, "damaged file"));
            }
        }
    }

    fn write_windows(&self, out: &mut String) {
        for window in &self.windows {
            let until = window.to_time.as_ref().map_or(String::new(), |t| format!(" (committed {t})"));
            let life =
                if window.life > 0 { format!(", life {} of its log", window.life) } else { String::new() };
            let _ = writeln!(
                out,
                "window     {}{life}: every transaction from {} (backup {}, {}) to {}{until}; {} into it",
                window.server,
                window.from,
                window.backup,
                window.from_time,
                window.to,
                if window.backups == 1 {
                    "1 backup leads".to_owned()
                } else {
                    format!("{} backups lead", window.backups)
                },
            );
        }
        for hole in &self.holes {
            let (server, from, to) = (&hole.server, &hole.from, &hole.to);
            let _ = writeln!(out, "HOLE       {server}: between {from} and {to}: {}", hole.why);
        }
    }

    fn write_end(&self, out: &mut String) {
        let took = duration(std::time::Duration::from_millis(self.took_ms));
        if self.clean {
            let what = match self.scope {
                Scope::Full => "everything was read and is right".to_owned(),
                Scope::Sample => format!(
                    "the structure and a sample of {} are right; --full reads every byte",
                    counted(self.counts.frames, "frame")
                ),
            };
            let _ = writeln!(out, "clean      {what} ({took})");
            return;
        }
        let _ = writeln!(out, "CORRUPTED  {} found ({took})", counted(self.flaw_count(), "flaw"));
        let (whole, all) = (self.backups.iter().filter(|b| b.whole).count(), self.backups.len());
        let _ = writeln!(
            out,
            "next       {whole} of {all} backups are whole and can be restored. Look at the disk, copy the repository \
             elsewhere, then see what can be mended: holdfast-fsck --repair --dry-run"
        );
    }
}

/// `1 record`, `1,024 records`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// `81,788,928`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_counted() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(81_788_928), "81,788,928");
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(1024, "record"), "1,024 records");
    }

    #[test]
    fn a_dead_disk_does_not_fill_the_memory_with_flaws() {
        let mut report = Report::default();
        for n in 0..5000 {
            report.flaw(Flaw { object: "o".into(), offset: Some(n), what: "w".into(), affects: Vec::new() });
        }
        assert_eq!(report.flaws.len(), FLAWS_KEPT_MAX);
        assert_eq!(report.flaw_count(), 5000);
        assert!(report.text().contains("and 4,000 flaws more"));
    }
}
