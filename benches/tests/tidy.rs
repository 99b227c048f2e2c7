//! The rules of the map, as tests: crate edges, sizes, headers, and the README's folders. What
//! they protect is said in DESIGN 2 and in the README.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The straight line: a crate may use what stands before it, nothing behind it.
const LINE: [(&str, &str); 7] = [
    ("holdfast-proto", "api/proto"),
    ("holdfast-engine", "engine"),
    ("holdfast-storage", "storage"),
    ("holdfast-raft", "raft"),
    ("holdfast-api", "api"),
    ("holdfast-sim", "sim"),
    ("holdfast-benches", "benches"),
];

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// Every file below the crates with this ending.
fn files(ending: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, ending: &str, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            if name == "target" || name.starts_with('.') || name == "holdfast-data" {
                continue;
            }
            if path.is_dir() {
                walk(&path, ending, out);
            } else if name.ends_with(ending) {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(&root(), ending, &mut out);
    out.sort();
    out
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn crates_stand_in_a_line() {
    let mut wrong = Vec::new();
    for (at, (name, folder)) in LINE.iter().enumerate() {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{folder} is not {name}");
        let mut section = String::new();
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line.to_owned();
            }
            for (other_at, (other, _)) in LINE.iter().enumerate() {
                let used = section.contains("dependencies")
                    && line.split(['.', ' ', '=']).next() == Some(*other);
                if used && other_at >= at {
                    wrong.push(format!("{name} uses {other}, which stands behind it"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_engine_is_pure() {
    let manifest = read(&root().join("engine/Cargo.toml"));
    let normal = manifest.split("[dev-dependencies]").next().unwrap_or_default();
    for impure in ["tokio", "tracing", "rand", "openraft", "rocksdb", "tonic", "futures", "log"] {
        let used = normal.lines().any(|l| l.split(['.', ' ', '=']).next() == Some(impure));
        assert!(!used, "the engine depends on {impure}");
    }
    let mut wrong = Vec::new();
    for path in files(".rs").into_iter().filter(|p| short(p).starts_with("engine/src")) {
        for (n, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let bad =
                ["HashMap", "HashSet", "SystemTime", "async fn", ".await", "std::fs", "std::env"];
            if let Some(what) = bad.iter().find(|what| code.contains(**what)) {
                wrong.push(format!("{}:{}: {what}", short(&path), n + 1));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn files_say_what_they_are_and_stay_small() {
    let mut wrong = Vec::new();
    for path in files(".rs") {
        let text = read(&path);
        let lines = text.lines().count();
        if lines > FILE_LINES {
            wrong.push(format!("{}: {lines} lines", short(&path)));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{}: does not open with //!", short(&path)));
        }
        for mark in ["FIX".to_owned() + "ME", "TO".to_owned() + "DO", "XX".to_owned() + "X"] {
            if text.contains(&mark) {
                wrong.push(format!("{}: {mark}", short(&path)));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn functions_stay_small() {
    let mut wrong = Vec::new();
    for path in files(".rs") {
        for (name, line, body) in functions(&read(&path)) {
            if body.len() > FUNCTION_LINES && !is_one_table(&body) {
                wrong.push(format!("{}:{line}: fn {name}: {} lines", short(&path), body.len()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_function_check_sees_what_it_should() {
    let long = "    let x = 1;\n".repeat(80);
    let text = format!("//! x\nfn long() {{\n{long}}}\n");
    let found = functions(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].2.len() > FUNCTION_LINES && !is_one_table(&found[0].2));
    let arms = "        A => 1,\n".repeat(80);
    let table = format!("//! x\nfn table(a: u8) -> u8 {{\n    match a {{\n{arms}    }}\n}}\n");
    assert!(is_one_table(&functions(&table)[0].2));
}

/// Name, first line and body lines of each function, found by indentation as rustfmt leaves it.
fn functions(text: &str) -> Vec<(String, usize, Vec<String>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let Some(name) = name_of(code) else { continue };
        let opening = lines[at..].iter().position(|l| l.ends_with('{') || l.ends_with(';'));
        let Some(open) = opening.filter(|o| lines[at + o].ends_with('{')) else { continue };
        let close = format!("{}}}", " ".repeat(indent));
        let Some(end) = lines[at..].iter().position(|l| **l == close) else { continue };
        let body = lines[at + open + 1..at + end].iter().map(|l| (*l).to_owned()).collect();
        out.push((name, at + 1, body));
    }
    out
}

fn name_of(code: &str) -> Option<String> {
    let mut rest = code;
    for word in ["pub(crate) ", "pub(super) ", "pub(in ", "pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    Some(name.split(['(', '<']).next().unwrap_or_default().to_owned())
}

/// A function that is one `match` of one-line arms is a table, not logic.
fn is_one_table(body: &[String]) -> bool {
    let code: Vec<&str> =
        body.iter().map(|l| l.trim()).filter(|l| !l.is_empty() && !l.starts_with("//")).collect();
    let starts = code.iter().position(|l| l.contains("match ") && l.ends_with('{'));
    let Some(starts) = starts.filter(|at| *at < 8) else { return false };
    let mut lines = code[starts + 1..].iter();
    let mut other = 0;
    while let Some(line) = lines.next() {
        if line.ends_with("=> {") {
            // An arm of one line that did not fit behind its pattern.
            let short = lines.next().is_some() && lines.next() == Some(&"}");
            other += usize::from(!short);
        } else if !(line.contains("=>") || line.starts_with("| ") || *line == "}") {
            other += 1;
        }
    }
    other <= 4
}

/// Folders two levels deep that hold something git tracks or would.
fn folders() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for ending in [".rs", ".sh", ".py", ".c", ".md", ".toml"] {
        for path in files(ending) {
            let short = short(&path);
            let mut parts: Vec<&str> = short.split('/').collect();
            parts.pop();
            for depth in 1..=parts.len().min(3) {
                out.insert(parts[..depth].join("/"));
            }
        }
    }
    out
}

#[test]
fn the_readme_names_every_folder() {
    let readme = read(&root().join("README.md"));
    let map = readme.split("## Map").nth(1).expect("a section called Map");
    let map = map.split("\n## ").next().unwrap_or_default();
    let named: BTreeSet<String> = map
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.ends_with('/'))
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect();
    let missing: Vec<_> = folders().difference(&named).cloned().collect();
    let stale: Vec<_> = named.iter().filter(|name| !root().join(name).is_dir()).cloned().collect();
    assert_eq!((missing, stale), (Vec::new(), Vec::new()), "(not in the map, not in the tree)");
}
