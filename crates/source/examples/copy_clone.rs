//! Copies a running MySQL over its clone protocol: `copy_clone HOST:PORT USER PASSWORD WORKERS INTO [ddl]`.
//!
//! Lays the copy out so that a stock server of the same version starts on it.

use holdfast_mysql::{ConnectOptions, Endpoint};
use holdfast_source::sinks::FolderSink;
use holdfast_source::{CloneSource, Source, Unwatched};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, user, password, workers, into, rest @ ..] = arguments.as_slice() else {
        return Err("usage: copy_clone HOST:PORT USER PASSWORD WORKERS INTO [ddl]".into());
    };
    let (host, port) = address.rsplit_once(':').ok_or("HOST:PORT")?;
    let endpoint = Endpoint::Tcp { host: host.to_owned(), port: port.parse()? };
    let connect = ConnectOptions::new(endpoint, user.as_str()).password(password.as_str().into());
    let sink = FolderSink::create(into)?;
    let mut source = CloneSource::new(connect, std::env::temp_dir())
        .workers(workers.parse()?)
        .concurrent_ddl(!rest.is_empty());
    let outcome = source.copy(&sink, &Unwatched)?;
    sink.finish()?;
    std::fs::create_dir(format!("{into}/#clone"))?;
    for name in ["#status_fix", "#replace_files"] {
        std::fs::write(format!("{into}/#clone/{name}"), b"")?;
    }
    println!("{outcome:#?}");
    Ok(())
}
