//! Binlog files of a load, read as Holdfast's replay wants them.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_replay::log::BoxError;
use holdfast_replay::{EventPlace, Log, LogReader};

use crate::rig::error::{Result, at};

/// Binlog files in their order.
#[derive(Clone, Debug)]
pub struct Files(Vec<PathBuf>);

impl Files {
    /// The numbered files of a folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in at("read", folder, fs::read_dir(folder))? {
            let path = at("read", folder, entry)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.rsplit_once('.').is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit())) {
                files.push(path);
            }
        }
        files.sort();
        Ok(Self(files))
    }

    /// Their paths.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len()).sum()
    }
}

impl Log for Files {
    fn read(&self) -> std::result::Result<Box<dyn LogReader + '_>, BoxError> {
        Ok(Box::new(Reader { files: &self.0, open: None, position: 0, name: "".into() }))
    }
}

struct Reader<'f> {
    files: &'f [PathBuf],
    open: Option<BufReader<File>>,
    position: u64,
    name: Arc<str>,
}

impl LogReader for Reader<'_> {
    fn next(&mut self, event: &mut Vec<u8>) -> std::result::Result<Option<EventPlace>, BoxError> {
        loop {
            let Some(open) = &mut self.open else {
                let Some((first, rest)) = self.files.split_first() else { return Ok(None) };
                let mut file = BufReader::with_capacity(1 << 20, File::open(first)?);
                file.read_exact(&mut [0; 4])?;
                self.name = first.file_name().unwrap_or_default().to_string_lossy().into();
                (self.files, self.open, self.position) = (rest, Some(file), 4);
                continue;
            };
            event.resize(19, 0);
            let got = open.read(event.get_mut(..1).unwrap_or_default())?;
            if got == 0 {
                self.open = None;
                continue;
            }
            open.read_exact(event.get_mut(1..).unwrap_or_default())?;
            let length = event.get(9..13).and_then(|len| len.try_into().ok()).map_or(0, u32::from_le_bytes);
            event.resize(length as usize, 0);
            open.read_exact(event.get_mut(19..).unwrap_or_default())?;
            let place = EventPlace { file: Arc::clone(&self.name), position: self.position };
            self.position += u64::from(length);
            return Ok(Some(place));
        }
    }
}
