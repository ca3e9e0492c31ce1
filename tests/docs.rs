//! That the pages say what there is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The methods by which a builder is set.
fn settings(source: &str) -> Vec<String> {
    let found: Vec<String> = source
        .lines()
        .filter_map(|line| line.strip_prefix("    pub fn "))
        .filter(|line| line.contains("(mut self,") || line.ends_with('('))
        .filter_map(|line| line.split(['(', '<']).next())
        .map(str::to_owned)
        .collect();
    assert!(found.len() > 3, "{found:?}");
    found
}

#[test]
fn each_setting_has_its_place() {
    // What these do is not to set a bound.
    const NO_BOUNDS: [&str; 5] = ["clock", "follow_up", "job", "job_with", "run_span"];
    let mut missing = Vec::new();
    for (source, page) in [
        ("src/operations/builder.rs", "docs/operating.md"),
        ("src/store/sqlite/mod.rs", "docs/stores.md"),
        ("src/store/postgres/mod.rs", "docs/stores.md"),
        ("src/store/redis/mod.rs", "docs/stores.md"),
        ("src/store/memory/mod.rs", "docs/stores.md"),
        ("src/webhook/builder.rs", "docs/webhooks.md"),
    ] {
        let text = read(page);
        for setting in settings(&read(source)) {
            let is_told = text.contains(&format!("`{setting}`")) || NO_BOUNDS.contains(&&*setting);
            if !is_told {
                missing.push(format!("{page}: `{setting}` of {source}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Links to files and to headings, as they are written in the pages.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = docs.chain([root.join("README.md")]).collect();
    assert!(pages.len() > 10);
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.contains("://") || target.starts_with("urn:") || !is_path(target) {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target}", page.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(
                    headings.into_iter().any(|one| one == heading),
                    "{}: {target}",
                    page.display()
                );
            }
        }
    }
}

fn is_path(target: &str) -> bool {
    target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./#".contains(&byte))
}

/// What a heading is called in a link.
fn anchor(line: &str) -> String {
    let text = line.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
