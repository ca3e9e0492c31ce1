//! That the pages say what there is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::fs;
use std::path::{Path, PathBuf};

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
    const NO_BOUNDS: [&str; 6] = ["clock", "follow_up", "handler", "job", "job_with", "run_span"];
    let mut missing = Vec::new();
    for (source, page) in [
        ("src/operations/builder.rs", "docs/operating.md"),
        ("src/operations/policy.rs", "docs/operating.md"),
        ("src/serve/mod.rs", "docs/operating.md"),
        ("src/tower/mode.rs", "docs/operating.md"),
        ("src/amqp/requests.rs", "docs/operating.md"),
        ("src/amqp/worker.rs", "docs/operating.md"),
        ("src/client/policy.rs", "docs/operating.md"),
        ("src/client/send.rs", "docs/operating.md"),
        ("src/store/sqlite/builder.rs", "docs/stores.md"),
        ("src/store/postgres/builder.rs", "docs/stores.md"),
        ("src/store/redis/builder.rs", "docs/stores.md"),
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

/// The files of a folder and of those in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What code gives to the macros of `tracing`, each time.
fn told(source: &str) -> Vec<&str> {
    let mut told = Vec::new();
    for name in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
        for (start, _) in source.match_indices(name) {
            if source[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &source[start + name.len()..];
            let mut open = 1;
            let end = rest.find(|c: char| {
                open += i32::from(c == '(') - i32::from(c == ')');
                open == 0
            });
            told.push(&rest[..end.unwrap()]);
        }
    }
    told
}

/// Events have the one target, and their page has all of them.
#[test]
fn each_event_has_its_place() {
    let page = read("docs/operating.md");
    let section = page.split("\n## Spans and events\n").nth(1).unwrap();
    let section = section.split("\n### ").next().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    for file in files(&root.join("src")) {
        for told in told(&fs::read_to_string(&file).unwrap()) {
            looked_at += 1;
            if !told.trim_start().starts_with("target: \"respond_async\"") {
                wrong.push(format!("{}: no target in {told}", file.display()));
            }
            // Its words, without what varies in them.
            let text = told.rsplit('"').nth(1).unwrap();
            let words = text.split(['{', '}']).max_by_key(|part| part.len()).unwrap().trim();
            if !section.contains(words) {
                wrong.push(format!("docs/operating.md: {words:?} of {}", file.display()));
            }
        }
    }
    assert!(looked_at > 20, "the sources were not found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a setter says of itself: the comment before it.
fn comments(source: &str) -> Vec<(String, String)> {
    let mut comments = Vec::new();
    let mut comment = String::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("    ///") {
            comment.push_str(text);
        } else if let Some(item) = line.strip_prefix("    pub fn ") {
            let name = item.split(['(', '<']).next().unwrap_or_default();
            comments.push((name.to_owned(), std::mem::take(&mut comment)));
        } else if !line.starts_with("    #[") {
            comment.clear();
        }
    }
    comments
}

#[test]
fn each_setter_says_its_default() {
    // These add something of which there is none before.
    const ADD: [&str; 5] = ["follow_up", "handler", "http_client", "job", "job_with"];
    let mut silent = Vec::new();
    for source in [
        "src/amqp/requests.rs",
        "src/amqp/worker.rs",
        "src/operations/builder.rs",
        "src/operations/policy.rs",
        "src/serve/mod.rs",
        "src/store/memory/mod.rs",
        "src/store/postgres/builder.rs",
        "src/store/redis/builder.rs",
        "src/store/sqlite/builder.rs",
        "src/webhook/builder.rs",
    ] {
        let text = read(source);
        let comments = comments(&text);
        for setting in settings(&text) {
            let says = comments.iter().any(|(name, comment)| {
                *name == setting && comment.to_lowercase().contains("default")
            });
            if !says && !ADD.contains(&&*setting) {
                silent.push(format!("`{setting}` of {source}"));
            }
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn each_problem_is_told_to_clients() {
    let page = read("docs/http.md");
    let types = read("src/problem/types.rs");
    // NAME = "slug", "Title", STATUS;
    let slugs = types.lines().filter_map(|line| {
        let (_, rest) = line.strip_prefix("    ")?.split_once(" = \"")?;
        Some(rest.split_once("\", \"")?.0)
    });
    let slugs: Vec<_> = slugs.collect();
    assert!(slugs.len() > 30, "{slugs:?}");
    for slug in slugs {
        assert!(page.contains(&format!("| `{slug}` |")), "`{slug}` is not on the page");
    }
}

/// An example can be copied without the others, so what several need each has a copy of.
#[test]
fn copies_in_the_examples_are_the_same() {
    let stop = |example| read(&format!("examples/{example}/src/stop.rs"));
    for example in ["gateway-proxy", "microservices"] {
        assert_eq!(stop(example), stop("images"), "{example}");
    }
}

/// The pages of `docs`, by their names, with their texts.
fn pages() -> Vec<(String, String)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let files = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    let pages: Vec<_> =
        files.map(|file| (name(&file), fs::read_to_string(file).unwrap())).collect();
    assert!(pages.len() > 10);
    pages
}

/// The definition of a link: its label, and where it leads.
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

/// Links to files and to headings, as they are written in the pages: beside their texts, or defined at the end.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = pages().into_iter().map(|(name, text)| (root.join("docs").join(name), text));
    for (page, text) in pages.chain([(root.join("README.md"), read("README.md"))]) {
        let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let defined = text.lines().filter_map(definition).map(|(_, target)| target);
        for target in inline.chain(defined) {
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

/// In the crate's documentation a page is a module, so a link between pages is defined twice: at the end of its
/// page for the repository, and in `src/guide.rs` for rustdoc.
#[test]
fn links_between_pages_lead_to_modules() {
    let guide = read("src/guide.rs");
    let index = read("docs/README.md");
    let mut looked_at = 0;
    for (page, text) in pages() {
        if page == "README.md" {
            continue;
        }
        assert!(guide.contains(&format!("\"../docs/{page}\"")), "{page} is not in the guide");
        assert!(index.contains(&format!("]({page})")), "{page} is not in the index");
        let mut inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let between = inline.find(|target| is_path(target) && target.contains(".md"));
        assert_eq!(between, None, "{page}: define it at the end");
        let defined: Vec<_> = text.lines().filter_map(definition).collect();
        for label in text.split("][").skip(1).filter_map(|rest| rest.split(']').next()) {
            let is_defined = defined.iter().any(|(defined, _)| *defined == label);
            assert!(is_defined || !label.contains(".md"), "{page}: {label} is not defined");
        }
        for (label, target) in defined {
            assert_eq!(label, target, "{page}");
            let (file, heading) = target.split_once(".md").unwrap();
            let module = file.replace('-', "_");
            let line = format!("#[doc = \"[{label}]: crate::guide::{module}{heading}\"]");
            assert!(guide.contains(&line), "src/guide.rs lacks {line}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 10);
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

/// The public names of a module, by its face: what it hands on, and what it defines there.
fn public_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut handed_on = None;
    for line in source.lines().take_while(|line| *line != "#[cfg(test)]") {
        if let Some(rest) = line.strip_prefix("pub use ") {
            handed_on = Some(String::from(rest));
        } else if let Some(text) = &mut handed_on {
            text.push_str(line);
        }
        if let Some(text) = handed_on.take_if(|text| text.ends_with(';')) {
            let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let last = words.filter_map(|word| word.rsplit(':').next());
            names.extend(last.filter(|name| !name.is_empty()).map(String::from));
        }
        let item = line.strip_prefix("pub ").unwrap_or_default();
        let mut words = item.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if let Some("struct" | "enum" | "trait" | "fn" | "const") = words.next() {
            names.extend(words.next().map(String::from));
        }
    }
    names
}

/// The modules that a module makes public, but those whose names stand elsewhere: the crate's own problems in
/// docs/operating.md, and the pages of the guide.
fn public_modules(face: &str) -> impl Iterator<Item = &str> {
    let modules = face.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    modules.filter(|module| !["types", "guide"].contains(module))
}

/// The public names of a module in a folder, and of those within it, with what leads to them: `cache::Cached`.
fn names_of_module(folder: &Path, module: &str) -> Vec<String> {
    let inner = folder.join(module);
    let face = fs::read_to_string(inner.join("mod.rs"))
        .unwrap_or_else(|_| fs::read_to_string(inner.with_extension("rs")).unwrap());
    let mut names = public_names(&face);
    for module in public_modules(&face) {
        let within = names_of_module(&inner, module);
        names.extend(within.into_iter().map(|name| format!("{module}::{name}")));
    }
    names
}

#[test]
fn each_name_is_on_the_page_of_the_api() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = read("docs/api.md");
    let root_file = read("src/lib.rs");
    let modules: Vec<_> = public_modules(&root_file).collect();
    assert!(modules.len() > 15);
    let mut missing = Vec::new();
    for module in modules {
        let row = format!("| `{module}`");
        let rows: String = page.lines().filter(|line| line.starts_with(&row)).collect();
        for name in names_of_module(&root.join("src"), module) {
            let is_told = rows.contains(&format!("`{name}`"));
            // What the layer hands on of the module of operations is told there.
            let is_told = is_told || (module == "tower" && name == "Owner");
            if !is_told {
                missing.push(format!("`{name}` of {module}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    for name in public_names(&root_file) {
        assert!(page.contains(&format!("`{name}`")), "`{name}` is not told");
    }
    for file in files(&root.join("src")) {
        let source = fs::read_to_string(&file).unwrap();
        let macros = source.split("#[macro_export]\nmacro_rules! ").skip(1);
        for name in macros.map(|rest| rest.split(' ').next().unwrap()) {
            let is_told = name.starts_with("__") || page.contains(&format!("`{name}!`"));
            assert!(is_told, "`{name}!` is not told");
        }
    }
}
