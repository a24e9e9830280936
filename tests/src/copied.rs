//! A base for restores without a repository: what one of our sources copied into a folder.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{Coordinates, Position, SourceKind};
use holdfast_restore::error::Foreign;
use holdfast_restore::marker::{LOCK, MARKER};
use holdfast_restore::{Base, LaidOut, LayingOut};
use holdfast_source::sinks::FolderSink;
use holdfast_source::{CloneSource, MariadbBackup, Outcome, Program, Source, Unwatched};

use crate::server::copy;
use crate::{Engine, TestServer};

/// A copy that one of our sources made, in a folder.
#[derive(Debug)]
pub struct Copied {
    dir: PathBuf,
    kind: SourceKind,
    /// What the source says of it.
    pub outcome: Outcome,
    coordinates: Coordinates,
}

fn position(flavor: Flavor, at: &holdfast_source::Position) -> Position {
    let gtid =
        if at.gtid.is_empty() { GtidSet::empty(flavor) } else { GtidSet::parse(flavor, &at.gtid).unwrap() };
    Position { file: at.file.clone(), offset: at.offset, gtid }
}

impl Copied {
    /// Copies a server into `base` below `dir`.
    #[must_use]
    pub fn take(server: &TestServer, dir: &Path) -> Self {
        Self::take_watched(server, dir, &Unwatched)
    }

    /// The same, watched.
    #[must_use]
    pub fn take_watched(server: &TestServer, dir: &Path, watch: &dyn holdfast_source::Watch) -> Self {
        let sink = FolderSink::create(dir.join("base")).unwrap();
        let (kind, flavor, outcome) = match server.engine() {
            Engine::MySql => {
                let mut source = CloneSource::new(server.backup_options(), dir);
                (SourceKind::Clone, Flavor::MySql, source.copy(&sink, watch).unwrap())
            }
            Engine::MariaDb => {
                let mut options = server.backup_options();
                options.endpoint = holdfast_mysql::Endpoint::Unix(server.socket().to_path_buf());
                let program = Program::Local(Some(Engine::MariaDb.dir().join("bin")));
                let mut source = MariadbBackup::new(options, program, dir);
                (SourceKind::Xbstream, Flavor::MariaDb, source.copy(&sink, watch).unwrap())
            }
        };
        sink.finish().unwrap();
        let coordinates = match &outcome.coordinates {
            holdfast_source::Coordinates::None => Coordinates::None,
            holdfast_source::Coordinates::Exact(at) => Coordinates::Exact(position(flavor, at)),
            holdfast_source::Coordinates::Between { lo, hi } => {
                Coordinates::Between { lo: position(flavor, lo), hi: position(flavor, hi) }
            }
        };
        Self { dir: dir.join("base"), kind, outcome, coordinates }
    }
}

impl Base for Copied {
    fn id(&self) -> String {
        "base-1".to_owned()
    }
    fn finished_us(&self) -> i64 {
        1
    }
    fn kind(&self) -> SourceKind {
        self.kind
    }
    fn coordinates(&self) -> &Coordinates {
        &self.coordinates
    }
    fn fact(&self, name: &str) -> Option<&str> {
        self.outcome.fact(name)
    }
    fn warnings(&self) -> Vec<String> {
        self.outcome.warnings.iter().map(ToString::to_string).collect()
    }
    fn bytes(&self) -> u64 {
        self.outcome.bytes
    }
    fn files(&self) -> u64 {
        self.outcome.files
    }
    fn restore_into(
        &self,
        dir: &Path,
        progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
    ) -> Result<LaidOut, Foreign> {
        // What an unfinished restore left is not kept; the marker, the lock and a clone's `#clone` are.
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match (name.as_str(), entry.file_type()?.is_dir()) {
                ("#clone" | MARKER | LOCK, _) => {}
                (_, true) => std::fs::remove_dir_all(entry.path())?,
                (_, false) => std::fs::remove_file(entry.path())?,
            }
        }
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            copy(&entry.path(), &dir.join(entry.file_name()));
        }
        let _ = progress(LayingOut { bytes: self.outcome.bytes, bytes_total: self.outcome.bytes });
        let (files, bytes) = (self.outcome.files, self.outcome.bytes);
        Ok(LaidOut { files, bytes, blocks: 1, ..LaidOut::default() })
    }
}
