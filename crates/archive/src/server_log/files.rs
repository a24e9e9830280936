//! The source's own files, as they come out of the archive.

use std::ops::ControlFlow;

use holdfast_format::record::StreamKey;

use super::{Cursor, Place, ServerLog, place};
use crate::error::Result;

/// A file of the source, as far as it is archived. [`ServerLog::read_file`] gives its events, each at its offset; the
/// file's magic comes before them, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedFile {
    /// The stream that it is of.
    pub stream: StreamKey,
    /// The file's name.
    pub name: String,
    /// Offset of the first byte that is archived: 4, or more where the archive began inside the file.
    pub start: u64,
    /// Offset behind the last byte that is archived.
    pub end: u64,
    /// Transactions in it.
    pub transactions: u64,
    /// Earliest and latest commit time in it, microseconds since the Unix epoch; `None` without a transaction.
    pub committed_us: Option<(i64, i64)>,
    from: Place,
    until: Place,
}

impl ServerLog<'_> {
    /// All files of which something is archived, in the order of the log. A name comes again in another stream.
    pub fn files(&self) -> Result<Vec<ArchivedFile>> {
        let mut found = Vec::new();
        for stream in &self.streams {
            for span in &stream.files {
                let file_no = found.len();
                found.push(ArchivedFile {
                    stream: stream.key,
                    name: span.name.clone(),
                    start: span.start,
                    end: span.end,
                    transactions: 0,
                    committed_us: None,
                    from: place(file_no, span.start),
                    until: place(file_no, span.end),
                });
            }
        }
        self.each_frame(&mut |frame| {
            let Some(file) = found.get_mut(frame.file_no) else { return Ok(ControlFlow::Continue(())) };
            frame.each(&mut |seen| {
                let us = seen.entry.commit_us;
                let (from, until) = file.committed_us.unwrap_or((us, us));
                file.committed_us = Some((from.min(us), until.max(us)));
                file.transactions += 1;
                Ok(())
            })?;
            Ok(ControlFlow::Continue(()))
        })?;
        found.retain(|file| file.end > file.start);
        Ok(found)
    }

    /// The events of a file. The first one is its FORMAT_DESCRIPTION, at offset 4, even where the archive begins behind
    /// it: then as the source sent it to us, without what it says of its own place.
    pub fn read_file(&self, file: &ArchivedFile) -> Result<Cursor<'_>> {
        self.read(file.from, file.until)
    }
}

/// The files that a stretch of time touches: from the first one with a transaction at `since_us` or later to the last one
/// with a transaction at `until_us` or earlier, and all between them.
#[must_use]
pub fn between(files: Vec<ArchivedFile>, since_us: Option<i64>, until_us: Option<i64>) -> Vec<ArchivedFile> {
    let late = |file: &ArchivedFile| {
        since_us.is_none_or(|since| file.committed_us.is_some_and(|(_, last)| last >= since))
    };
    let early = |file: &ArchivedFile| {
        until_us.is_none_or(|until| file.committed_us.is_some_and(|(first, _)| first <= until))
    };
    let (Some(first), Some(last)) = (files.iter().position(late), files.iter().rposition(early)) else {
        return Vec::new();
    };
    files.into_iter().take(last + 1).skip(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::gtid::Uuid;
    use holdfast_format::ids::ServerId;

    fn file(name: &str, committed_us: Option<(i64, i64)>) -> ArchivedFile {
        let stream = StreamKey { server: ServerId([1; 16]), source_uuid: Uuid([2; 16]), incarnation: 0 };
        let (from, until) = (Place(0), Place(0));
        ArchivedFile {
            stream,
            name: name.into(),
            start: 4,
            end: 9,
            transactions: 0,
            committed_us,
            from,
            until,
        }
    }

    #[test]
    fn a_stretch_of_time_takes_the_files_that_it_touches_and_those_between() {
        let files = vec![
            file("a", Some((10, 20))),
            file("b", None),
            file("c", Some((20, 30))),
            file("d", Some((31, 40))),
            file("e", None),
        ];
        let names = |since, until| -> String {
            between(files.clone(), since, until).into_iter().map(|file| file.name).collect()
        };
        assert_eq!(names(None, None), "abcde");
        assert_eq!(names(Some(20), Some(20)), "abc");
        assert_eq!(names(Some(21), Some(30)), "c");
        assert_eq!(names(Some(21), None), "cde");
        assert_eq!(names(None, Some(9)), "");
        assert_eq!(names(Some(41), None), "", "what is newer is not there");
        assert_eq!(names(Some(30), Some(5)), "");
    }
}
