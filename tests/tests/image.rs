//! The image's recipe (`tools/packaging/Containerfile`) names what is there: no engine builds it here, so this is what can be
//! said of it. Files, packages, programs, folders and versions are those of this tree.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The recipe's instructions, each in one line, without what is said about them.
fn instructions() -> Vec<String> {
    let text = read("tools/packaging/Containerfile").replace("\\\n", " ");
    let said = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    said.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn every_file_package_and_program_that_the_recipe_names_is_there() {
    let (mut built, mut copied) = (Vec::new(), 0);
    for line in instructions() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["COPY", from, programs @ .., "/usr/bin/"] if from.starts_with("--from=build") => {
                for program in programs {
                    let name = program.strip_prefix("/src/target/release/").unwrap();
                    assert!(built.contains(&name.to_owned()), "{name} is not built by the recipe: {built:?}");
                    copied += 1;
                }
            }
            ["COPY", files @ .., _] => {
                for file in files {
                    assert!(top().join(file).exists(), "{file} is not there");
                }
            }
            ["RUN", "cargo", "build", rest @ ..] => {
                assert!(rest.contains(&"--release") && rest.contains(&"--locked"), "{line}");
                let packages = rest.windows(2).filter_map(|pair| match pair {
                    ["-p", package] => Some(*package),
                    _ => None,
                });
                for package in packages {
                    let folder = package.strip_prefix("holdfast-").unwrap();
                    let manifest = read(&format!("crates/{folder}/Cargo.toml"));
                    assert!(manifest.contains(&format!("name = \"{package}\"")), "{package}");
                    let bins = manifest.split("[[bin]]").skip(1);
                    let named = bins.filter_map(|bin| bin.split("name = \"").nth(1)?.split('"').next());
                    let before = built.len();
                    built.extend(named.map(str::to_owned));
                    if built.len() == before {
                        built.push(package.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    assert_eq!(copied, 3, "the three programs: {built:?}");
}

#[test]
fn the_image_has_the_folders_that_the_daemon_looks_for_and_a_toolchain_that_builds_it() {
    let recipe = instructions().join("\n");
    let config = read("crates/daemon/src/config.rs") + &read("crates/daemon/src/main.rs");
    for place in ["/var/lib/holdfast", "/run/holdfast/holdfast.sock", "/etc/holdfast/holdfast.toml"] {
        assert!(config.contains(&format!("\"{place}\"")), "the daemon has another default than {place}");
        assert!(recipe.contains(place), "the image has no {place}");
    }
    // The daemon of the image is a user of its own, and what it writes to is that user's.
    assert!(recipe.contains("\nUSER holdfast\n") && recipe.contains("install -d -o holdfast"), "{recipe}");
    let wanted = read("Cargo.toml");
    let wanted = wanted.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    let given = recipe.split("library/rust:").nth(1).unwrap().split('-').next().unwrap();
    assert!(numbers(given) >= numbers(&wanted), "the image builds with {given}, and {wanted} is needed");
    // Both stages are of one distribution: a program asks for the C library that it was built with.
    assert_eq!(recipe.matches("bookworm").count(), recipe.matches("\nFROM ").count() + 1, "{recipe}");
}
