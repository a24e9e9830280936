//! Cargo, asked whether the woven tree compiles, and for its test programs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::find::Mutant;
use crate::tree::Tree;
use crate::weave::Woven;

/// Cargo could not do what it was asked for.
#[derive(Debug)]
pub struct Failed(pub String);

/// A test program, and the folder of its crate, which it is run in.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub folder: PathBuf,
    pub name: String,
}

/// Weaves, drops what does not compile, and so on until all of the rest does. Gives back the numbers that were dropped.
pub fn until_it_compiles(
    tree: &Tree,
    mutants: &mut BTreeMap<String, Vec<(u32, Mutant)>>,
    crates: &[&str],
    target: &Path,
) -> Result<BTreeSet<u32>, Failed> {
    let mut dropped = BTreeSet::new();
    loop {
        let woven = tree.weave(mutants).map_err(|err| Failed(err.to_string()))?;
        let mut words = vec!["check".to_owned()];
        words.extend(crates.iter().flat_map(|name| ["-p".to_owned(), format!("holdfast-{name}")]));
        let (built, messages) = cargo(&tree.top, target, &words)?;
        if built {
            return Ok(dropped);
        }
        let mut bad = BTreeSet::new();
        let mut unknown = String::new();
        for message in messages.iter().filter(|message| message["message"]["level"] == "error") {
            let found = blamed(&message["message"], &woven);
            if found.is_empty()
                && message["message"]["spans"].as_array().is_some_and(|spans| !spans.is_empty())
            {
                unknown = message["message"]["rendered"].as_str().unwrap_or_default().to_owned();
            }
            bad.extend(found);
        }
        if bad.is_empty() {
            return Err(Failed(format!(
                "the woven tree does not compile, and no mutant is to blame\n{unknown}"
            )));
        }
        eprintln!("mutants: {} do not compile", bad.len());
        for list in mutants.values_mut() {
            list.retain(|(number, _)| !bad.contains(number));
        }
        dropped.extend(bad);
    }
}

/// The mutants that an error is about: those in whose own code it points; else all of the innermost place.
fn blamed(message: &Value, woven: &BTreeMap<String, Woven>) -> BTreeSet<u32> {
    let mut own = BTreeSet::new();
    let mut around: Option<(usize, BTreeSet<u32>)> = None;
    for span in message["spans"].as_array().into_iter().flatten() {
        let (Some(begin), Some(end)) = (span["byte_start"].as_u64(), span["byte_end"].as_u64()) else {
            continue;
        };
        let Some(file) = woven.get(span["file_name"].as_str().unwrap_or_default()) else { continue };
        let inside = |range: &Range<usize>| range.start <= begin as usize && end as usize <= range.end;
        for (number, code, whole) in &file.places {
            if inside(code) {
                own.insert(*number);
            }
            // A statement's own wrapper is never what is wrong with the statement.
            if inside(whole) && !code.is_empty() {
                match &mut around {
                    Some((len, numbers)) if *len == whole.len() => _ = numbers.insert(*number),
                    Some((len, _)) if *len < whole.len() => {}
                    _ => around = Some((whole.len(), [*number].into())),
                }
            }
        }
    }
    if own.is_empty() { around.map(|(_, numbers)| numbers).unwrap_or_default() } else { own }
}

/// Builds the tests of these packages.
pub fn programs(tree: &Tree, packages: &[&str], target: &Path) -> Result<Vec<Program>, Failed> {
    let mut words = vec!["test".to_owned(), "--no-run".to_owned(), "--tests".to_owned()];
    words.extend(packages.iter().flat_map(|name| ["-p".to_owned(), (*name).to_owned()]));
    let (built, messages) = cargo(&tree.top, target, &words)?;
    if !built {
        let errors = messages.iter().filter_map(|message| message["message"]["rendered"].as_str());
        return Err(Failed(format!(
            "the tests of the woven tree do not compile\n{}",
            errors.collect::<String>()
        )));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(messages
        .iter()
        .filter(|message| message["profile"]["test"] == true && message["executable"].is_string())
        .map(|message| {
            let folder =
                Path::new(&text(&message["manifest_path"])).parent().map(Path::to_owned).unwrap_or_default();
            let of = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Program {
                path: text(&message["executable"]).into(),
                folder,
                name: format!("{of}/{}", text(&message["target"]["name"])),
            }
        })
        .collect())
}

fn cargo(top: &Path, target: &Path, words: &[String]) -> Result<(bool, Vec<Value>), Failed> {
    let output = Command::new("cargo")
        .args(words)
        .args(["--quiet", "--locked", "--message-format=json"])
        .current_dir(top)
        .env("CARGO_TARGET_DIR", target)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|err| Failed(format!("cargo: {err}")))?;
    let messages = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    Ok((output.status.success(), messages))
}
