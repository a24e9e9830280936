//! `import`.

use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, Import};
use crate::output::{Output, size};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::error::Error;
use holdfast_appliance::import::{ImportedView, Options};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(super) fn import(common: &Common, output: Output, wanted: &Import) -> std::result::Result<u8, Stop> {
    let absolute = |path: &Path| -> std::result::Result<PathBuf, Error> {
        std::path::absolute(path)
            .map_err(|e| Error::usage(format!("The path {} can't be used: {e}.", path.display())))
    };
    let options = Options {
        engine_dir: wanted.engine_dir.clone(),
        scratch: wanted.scratch.as_deref().map(absolute).transpose()?,
        note: wanted.note.clone(),
        whole: wanted.whole,
    };
    let dump = absolute(&wanted.dump)?;
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let done = holdfast_appliance::import::dump(&catalogue, &wanted.name, &dump, &options, &meter);
    meter.finish();
    let view = done?;
    output.answer(&view, |out| show(out, &wanted.name, &view))?;
    Ok(if view.warnings.is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

fn show(out: &mut dyn Write, name: &str, view: &ImportedView) -> io::Result<()> {
    for warning in &view.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if let Some(position) = &view.position {
        writeln!(out, "It stands at {position} in the log of '{name}'.")?;
    }
    writeln!(
        out,
        "Imported {} statements ({}) as the backup {} of '{name}'.",
        view.statements,
        size(view.bytes),
        view.backup.id
    )
}
