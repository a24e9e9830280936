//! What the sources read: backup streams and InnoDB pages.

use std::collections::HashMap;
use std::path::Component;

use holdfast_source::Error;
use holdfast_source::page::{self, PageFormat, Verdict};
use holdfast_source::xbstream::{Event, Parser};

/// A backup stream. The first byte chooses how it is cut, the rest is the stream. Names stay below the folder, a
/// file's bytes follow each other, nothing follows a file's end.
pub fn xbstream(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else { return };
    let mut parser = Parser::new();
    // Where each file stands; `None` after its end.
    let mut files: HashMap<Vec<u8>, Option<u64>> = HashMap::new();
    for piece in stream.chunks(usize::from(*step) + 1) {
        let fed = parser.feed(piece, |event| {
            match event {
                Event::Data { path, offset, bytes } => {
                    assert!(path.as_path().components().all(|c| matches!(c, Component::Normal(_))));
                    assert!(!bytes.is_empty());
                    let at = files.entry(path.as_bytes().to_vec()).or_insert(Some(0));
                    assert!(at.is_some_and(|at| at <= offset));
                    *at = Some(offset + bytes.len() as u64);
                }
                Event::End { path, len } => {
                    let at = files.insert(path.as_bytes().to_vec(), None).unwrap_or(Some(0));
                    assert!(at.is_some_and(|at| at <= len));
                }
            }
            Ok::<(), Error>(())
        });
        if fed.is_err() {
            return;
        }
    }
    if let Ok(count) = parser.finish() {
        assert_eq!(count, files.len() as u64);
        assert!(files.values().all(Option::is_none));
    }
}

/// One page. The first four bytes are the tablespace's flags, the next one says where the page is.
pub fn innodb_page(data: &[u8]) {
    let Some((flags, rest)) = data.split_first_chunk::<4>() else { return };
    let Some((place, rest)) = rest.split_first() else { return };
    let _ = PageFormat::from_first_page(rest);
    let Some(format) = PageFormat::from_fsp_flags(u32::from_be_bytes(*flags)) else { return };
    let mut bytes = rest.to_vec();
    bytes.resize(format.page_bytes as usize, 0);
    let verdict = page::check(format, u64::from(*place), place & 1 == 1, &bytes);
    assert_eq!(verdict == Verdict::Empty, page::all_zero(&bytes[..26]) && page::all_zero(&bytes[34..]));
}
