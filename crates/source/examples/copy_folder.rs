//! Copies a folder at rest into another one and says what it met: `copy_folder FROM INTO`.

use holdfast_source::sinks::FolderSink;
use holdfast_source::{FolderSource, Source, Unwatched};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(into)) = (arguments.next(), arguments.next()) else {
        return Err("usage: copy_folder FROM INTO".into());
    };
    let sink = FolderSink::create(std::path::PathBuf::from(into))?;
    let outcome = FolderSource::new(std::path::PathBuf::from(from)).copy(&sink, &Unwatched)?;
    sink.finish()?;
    println!("{outcome:#?}");
    Ok(())
}
