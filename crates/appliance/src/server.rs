//! `server add`, `list`, `show`: which servers are protected.

use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::fail_over::member_identity;
use crate::login::{connect, connect_options};
use crate::origin;
use crate::settings::{Login, Settings};
use crate::time::now;
use crate::views::ServerView;
use holdfast_format::gtid::{Flavor, Uuid};
use holdfast_format::ids::ServerId;
use holdfast_format::limits::NAME_BYTES_MAX;
use holdfast_format::record::{Record, ServerKind, ServerRecord};
use holdfast_mysql::Conn;
use serde::Serialize;
use std::path::Path;

/// What `server add` was told.
#[derive(Clone, Debug)]
pub struct Added {
    /// The name to give it.
    pub name: String,
    /// How it is reached.
    pub kind: ServerKind,
    /// How to log in; not used for a folder. Repository and name are filled in here.
    pub login: Login,
    /// Another `server_uuid` than the known one is right: the server was rebuilt or replaced.
    pub rebuilt: bool,
}

/// A server that was added.
#[derive(Clone, Debug, Serialize)]
pub struct AddedView {
    /// It.
    #[serde(flatten)]
    pub server: ServerView,
    /// What could not be written down of it, though it is protected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Protects a server: looks at it, records its identity in the repository, and the way in to it
/// in the user's configuration. Adding a name again replaces what was known of the same server.
///
/// # Errors
/// `Usage` for a bad name or folder, or another server's name, `Failed` when the server can't be reached.
pub fn add(catalogue: &Catalogue, added: Added) -> Result<AddedView> {
    check_name(&added.name)?;
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let known = catalogue.repository.servers().into_iter().find(|s| s.name == added.name);
    let mut record = ServerRecord {
        id: match &known {
            Some(known) => known.id,
            None => ServerId(random_16()?),
        },
        name: added.name.clone(),
        flavor: None,
        kind: added.kind,
        // MariaDB shows none: it stays what it is.
        source_uuid: known.as_ref().and_then(|known| known.source_uuid),
        version: String::new(),
        added_us: known.as_ref().map_or_else(now, |k| k.added_us),
    };
    let mut login = added.login;
    login.repository = catalogue.repository.id().to_string();
    login.name.clone_from(&record.name);
    if let ServerKind::Folder { path } = &mut record.kind {
        *path = whole_path(path)?;
    }
    let moved = known.as_ref().is_some_and(|known| known.kind != record.kind);
    let origin = if matches!(record.kind, ServerKind::Folder { .. }) {
        origin::look(catalogue, &record, None)
    } else {
        let options = connect_options(&catalogue.environment, &record, Some(&login))?;
        let mut conn = connect(&options, &record.name)?;
        identify(&mut conn, &mut record)?;
        if added.rebuilt && moved && is_mariadb(&record) {
            record.source_uuid = Some(member_identity(&mut conn, &record)?);
        }
        origin::look(catalogue, &record, Some(&mut conn))
    };
    if let Some(known) = known {
        refuse_another_server(&known, &record, added.rebuilt)?;
    }
    if !matches!(record.kind, ServerKind::Folder { .. }) {
        let file = &catalogue.environment.config_file;
        let mut settings = Settings::load(file)?;
        settings.put(login);
        settings.save(file)?;
    }
    // Another place under the name, of which nothing is found, came from nowhere that is known.
    let origin = origin.or_else(|| {
        let told_by_uuid = record.flavor == Some(Flavor::MySql);
        let told = catalogue.known(|known| known.origin(record.id).is_some());
        (moved && told && !told_by_uuid).then(|| origin::none(&record))
    });
    catalogue.repository.append(Record::ServerPut(record.clone())).map_err(|e| catalogue.store_error(e))?;
    // The server is protected by now, whatever comes of this.
    let warnings = origin.and_then(|origin| origin::keep(catalogue, origin)).into_iter().collect();
    Ok(AddedView { server: view(catalogue, &record)?, warnings })
}

/// All protected servers.
///
/// # Errors
/// `Usage` when the configuration can't be read.
pub fn list(catalogue: &Catalogue) -> Result<Vec<ServerView>> {
    let settings = settings(catalogue)?;
    Ok(catalogue.servers().iter().map(|server| view_by(catalogue, &settings, server)).collect())
}

/// One server.
///
/// # Errors
/// `Usage` when there is none of that name.
pub fn show(catalogue: &Catalogue, name: &str) -> Result<ServerView> {
    view(catalogue, &catalogue.server(name)?)
}

fn settings(catalogue: &Catalogue) -> Result<Settings> {
    Settings::load(&catalogue.environment.config_file)
}

pub(crate) fn view(catalogue: &Catalogue, server: &ServerRecord) -> Result<ServerView> {
    Ok(view_by(catalogue, &settings(catalogue)?, server))
}

/// Whoever shows many reads the settings once.
fn view_by(catalogue: &Catalogue, settings: &Settings, server: &ServerRecord) -> ServerView {
    ServerView {
        name: server.name.clone(),
        engine: engine_words(server),
        place: match &server.kind {
            ServerKind::Network { socket: Some(socket), .. } => socket.clone(),
            ServerKind::Network { host, port, socket: None } => format!("{host}:{port}"),
            ServerKind::Folder { path } => path.clone(),
        },
        uuid: server.source_uuid.map(|uuid| uuid.to_string()),
        added: server.added_us,
        login_known: settings.login(&catalogue.repository.id().to_string(), &server.name).is_some(),
        origin: origin::view(catalogue, server),
        backups: catalogue.known(|known| known.of(server.id).map_or(0, |of| of.bases.len() as u64)),
    }
}

/// Whether it is a MariaDB; a MySQL or a folder otherwise.
#[must_use]
pub fn is_mariadb(server: &ServerRecord) -> bool {
    server.flavor == Some(Flavor::MariaDb)
}

/// Whether it has a log that can be followed: it is no folder.
#[must_use]
pub fn has_log(server: &ServerRecord) -> bool {
    !matches!(server.kind, ServerKind::Folder { .. })
}

/// Family and version for people.
pub(crate) fn engine_words(server: &ServerRecord) -> String {
    match server.flavor {
        Some(Flavor::MySql) => format!("MySQL {}", server.version),
        Some(Flavor::MariaDb) => format!("MariaDB {}", server.version),
        None => "folder".to_owned(),
    }
}

/// Reads what identifies the server into `record`.
///
/// # Errors
/// `Failed` with the server's message.
pub(crate) fn identify(conn: &mut Conn, record: &mut ServerRecord) -> Result<()> {
    let version = conn.server().clone();
    record.version = version.text.clone();
    if version.is_mariadb() {
        record.flavor = Some(Flavor::MariaDb);
        // MariaDB has no server_uuid. The identity we give stays with the record.
        record.source_uuid.get_or_insert(Uuid(record.id.0));
        return Ok(());
    }
    record.flavor = Some(Flavor::MySql);
    let uuid = conn.query_text("SELECT @@GLOBAL.server_uuid").map_err(|e| {
        Error::failed(format!("The server '{}' did not tell its server_uuid: {e}", record.name))
    })?;
    let uuid = uuid.unwrap_or_default();
    record.source_uuid = Some(uuid.parse().map_err(|e| {
        Error::failed(format!("The server '{}' has the server_uuid '{uuid}': {e}", record.name))
    })?);
    Ok(())
}

/// Both identities, if a server shows another one than it is known by. MariaDB shows none.
pub(crate) fn other_identity(known: &ServerRecord, now: &ServerRecord) -> Option<(Uuid, Uuid)> {
    known.source_uuid.zip(now.source_uuid).filter(|(old, new)| old != new && known.flavor == now.flavor)
}

/// A name stands for one server; its history must not be continued by another one unseen.
fn refuse_another_server(known: &ServerRecord, now: &ServerRecord, rebuilt: bool) -> Result<()> {
    if !rebuilt && let Some((old, new)) = other_identity(known, now) {
        return Err(Error::usage(format!(
            "'{}' has the server_uuid {old} in this repository, and this server has {new}.",
            known.name
        ))
        .with_next(format!(
            "give it another name; if it is '{}', rebuilt or replaced, add it with --rebuilt",
            known.name
        )));
    }
    if known.flavor.is_some() && now.flavor.is_some() && known.flavor != now.flavor {
        return Err(Error::usage(format!(
            "'{}' is {} in this repository, and this server is {}.",
            known.name,
            engine_words(known),
            engine_words(now)
        ))
        .with_next("give it another name"));
    }
    let folder = |s: &ServerRecord| matches!(s.kind, ServerKind::Folder { .. });
    if folder(known) != folder(now) {
        return Err(Error::usage(format!(
            "'{}' is a {} in this repository.",
            known.name,
            if folder(known) { "folder" } else { "server" }
        ))
        .with_next("give the other one another name"));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX as usize
        && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
        && !name.starts_with(['-', '.']);
    if fine {
        return Ok(());
    }
    Err(Error::usage(format!("'{name}' can't be the name of a server."))
        .with_next("use letters, digits, '-', '_' and '.', not beginning with '-' or '.'"))
}

fn whole_path(path: &str) -> Result<String> {
    let whole = std::fs::canonicalize(path)
        .map_err(|error| Error::usage(format!("The folder {path} can't be used: {error}.")))?;
    if !whole.is_dir() {
        return Err(Error::usage(format!("{path} is not a folder.")));
    }
    utf8(&whole)
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::usage(format!("The path {} is not valid UTF-8.", path.display()))
            .with_next("use a path of UTF-8 characters")
    })
}

fn random_16() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::failed(format!("The system gave no random bytes: {error}.")))?;
    Ok(bytes)
}
