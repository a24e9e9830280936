//! What a folder says about the server it belongs to.

use std::fs;
use std::path::Path;

use crate::page::PageFormat;

/// Longest of the small text files read here.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Facts under the names of the server's variables, as far as the files tell them.
pub(super) fn of_folder(dir: &Path) -> Vec<(String, String)> {
    let mut facts = vec![("source".to_owned(), "folder".to_owned())];
    let mut add = |name: &str, value: String| facts.push((name.to_owned(), value));
    if let Some(version) = version(dir) {
        add("version", version);
    }
    if let Some(uuid) = server_uuid(dir) {
        add("server_uuid", uuid);
    }
    if let Some(format) =
        first_bytes(&dir.join("ibdata1")).and_then(|head| PageFormat::from_first_page(&head))
    {
        add("innodb_page_size", format.page_bytes.to_string());
    }
    facts
}

/// The version that ran on the folder last. MySQL 8.4 and later keep a history in JSON, older ones and MariaDB
/// the bare version in a file of its own.
fn version(dir: &Path) -> Option<String> {
    if let Some(history) = text(&dir.join("mysql_upgrade_history")) {
        let last = history.rsplit_once("\"version\"")?.1;
        return last.split('"').nth(1).map(str::to_owned);
    }
    let bare =
        ["mariadb_upgrade_info", "mysql_upgrade_info"].iter().find_map(|name| text(&dir.join(name)))?;
    let version = bare.lines().next()?.trim_matches(['\0', ' ', '\r']).to_owned();
    (!version.is_empty()).then_some(version)
}

fn server_uuid(dir: &Path) -> Option<String> {
    let auto = text(&dir.join("auto.cnf"))?;
    auto.lines().find_map(|line| line.trim().strip_prefix("server-uuid=").map(|uuid| uuid.trim().to_owned()))
}

fn text(path: &Path) -> Option<String> {
    let small = fs::metadata(path).ok()?.len() <= TEXT_BYTES_MAX;
    small.then(|| fs::read_to_string(path).ok()).flatten()
}

fn first_bytes(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut head = Vec::new();
    fs::File::open(path).ok()?.take(4096).read_to_end(&mut head).ok()?;
    Some(head)
}
