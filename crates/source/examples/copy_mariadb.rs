//! Copies a running MariaDB into a folder: `copy_mariadb SOCKET USER BIN_DIR INTO`.

use holdfast_mysql::{ConnectOptions, Endpoint};
use holdfast_source::sinks::FolderSink;
use holdfast_source::{MariadbBackup, Program, Source, Unwatched};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, user, bin, into] = arguments.as_slice() else {
        return Err("usage: copy_mariadb SOCKET USER BIN_DIR INTO".into());
    };
    let connect = ConnectOptions::new(Endpoint::Unix(socket.into()), user.as_str());
    let sink = FolderSink::create(into)?;
    let outcome = MariadbBackup::new(connect, Program::Local(Some(bin.into())), std::env::temp_dir())
        .copy(&sink, &Unwatched)?;
    sink.finish()?;
    println!("{outcome:#?}");
    Ok(())
}
