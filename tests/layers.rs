//! Each module imports only from the layers below its own. docs/architecture.md says why.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. Modules of one layer do not import each other.
const LAYERS: &[&[&str]] = &[
    &["lock", "text", "time"],
    &["header", "prefer", "problem"],
    &["operation"],
    &["respond"],
    &["event", "read_model"],
    &["store"],
    &["operations"],
    &["conformance"],
    &["amqp", "client", "monitor", "openapi", "webhook"],
    &["actix", "axum", "serve", "tower"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a line of code names by `crate::`, several in `crate::{…}`.
fn imports(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split(',').collect(),
            None => vec![rest],
        })
        .map(|path| {
            path.trim()
                .trim_start_matches("__")
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap()
        })
        .collect()
}

#[test]
fn imports_only_look_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    for file in &files {
        let place = file.strip_prefix(&root).unwrap().with_extension("");
        let module = place.components().next().unwrap().as_os_str().to_str().unwrap();
        // The suite lies with the stores and runs workers on them.
        let module = if place.starts_with("store/conformance") { "conformance" } else { module };
        if module == "lib" || module == "guide" {
            continue;
        }
        let Some(own) = layer(module) else {
            wrong.push(format!("{}: no layer is set for this module", file.display()));
            continue;
        };
        for (number, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            for import in imports(line) {
                looked_at += 1;
                // An exported macro stands at the root; its name begins with that of its module.
                let import = import.split_once("_conformance").map_or(import, |(module, _)| module);
                if import != module && layer(import).is_none_or(|theirs| theirs >= own) {
                    wrong.push(format!(
                        "{}:{}: {module} uses {import}",
                        file.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(looked_at > 50, "the sources were not found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_recognised() {
    assert_eq!(imports("use crate::store::{A, B}; // crate::axum"), ["store"]);
    assert_eq!(imports("use crate::{header::Link, problem};"), ["header", "problem"]);
    assert_eq!(imports("fn f(x: &crate::Problem) -> crate::time::Clock {"), ["Problem", "time"]);
}
