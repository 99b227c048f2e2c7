//! The shim and the model of the disk, on a program whose every write is known:
//! `src/bin/powerloss-child.rs`, started under the shim. Then the log and the tables on that disk.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use holdfast_benches::powerloss::{Disk, TEARS, Tear, build_shim, watch};
use holdfast_benches::rng::Rng;
use tempfile::TempDir;

/// The child of this test: which writes what its name says.
fn child(scenario: &str) -> (TempDir, PathBuf, PathBuf) {
    let folder = TempDir::new().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let (root, journal) = (base.join("root"), base.join("journal"));
    fs::create_dir(&root).unwrap();
    let library = build_shim(&base.join("shim")).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_powerloss-child"))
        .arg(scenario)
        .arg(&root)
        .envs(watch(&library, &root, &journal))
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    (folder, root, journal)
}

/// Replays the journal and cuts the power, once per seed; returns each seed's folder.
fn cuts(
    root: &Path,
    journal: &Path,
    tear: Tear,
    unsynced: Option<&'static str>,
) -> Vec<Vec<(String, Vec<u8>)>> {
    let mut disk = Disk::new(unsynced);
    disk.replay(journal).unwrap();
    assert_eq!(disk.differs(root).unwrap(), Vec::<String>::new(), "the shim missed a change");
    let image = root.with_extension("image");
    (0..40)
        .map(|seed| {
            fs::create_dir(&image).unwrap();
            disk.cut(&image, tear, &mut Rng::new(seed)).unwrap();
            let files = files(&image);
            fs::remove_dir_all(&image).unwrap();
            files
        })
        .collect()
}

fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            let below = files(&entry.path()).into_iter();
            found.extend(below.map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            found.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

fn content<'a>(files: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    files.iter().find(|(path, _)| path == name).map(|(_, bytes)| &bytes[..])
}

#[test]
fn synced_stays_and_unsynced_goes() {
    let (_folder, root, journal) = child("write_in_every_way");
    for files in cuts(&root, &journal, Tear::None, None) {
        assert_eq!(content(&files, "log"), Some(&b"one two "[..]));
        assert_eq!(content(&files, "table"), Some(&b"...AB..."[..]));
        assert_eq!(content(&files, "nameless"), None);
    }
}

#[test]
fn kept_whole_it_is_what_sigkill_leaves() {
    let (_folder, root, journal) = child("write_in_every_way");
    let left = files(&root);
    assert_eq!(left.len(), 3);
    assert!(cuts(&root, &journal, Tear::All, None).iter().all(|files| *files == left));
}

#[test]
fn tails_tear() {
    let (_folder, root, journal) = child("write_in_every_way");
    let logs = |tear| -> Vec<Vec<u8>> {
        let cut = cuts(&root, &journal, tear, None);
        cut.iter().map(|files| content(files, "log").unwrap().to_vec()).collect()
    };
    for tear in TEARS {
        assert!(logs(tear).iter().all(|log| log.starts_with(b"one two ")), "{tear:?}");
    }
    let inside = |log: &Vec<u8>| log.len() > 8 && log.len() < 10_008;
    assert!(logs(Tear::Prefix).iter().filter(|log| inside(log)).count() > 5);
    assert!(logs(Tear::Prefix).iter().all(|log| log[8..].iter().all(|byte| *byte == b'x')));
    let zeros = |log: &Vec<u8>| log.len() == 10_008 && log.ends_with(&[0]) && log[8] == b'x';
    assert!(logs(Tear::Zeros).iter().filter(|log| zeros(log)).count() > 5);
    let hole = |log: &Vec<u8>| log[5_000] == 0 && log[9_000] == b'x';
    assert!(logs(Tear::Pages).iter().any(hole));
}

#[test]
fn a_file_whose_syncs_are_ignored_is_empty() {
    let (_folder, root, journal) = child("write_in_every_way");
    for files in cuts(&root, &journal, Tear::None, Some("log")) {
        assert_eq!(content(&files, "log"), Some(&b""[..]));
        assert_eq!(content(&files, "table"), Some(&b"...AB..."[..]));
    }
}

#[test]
fn names_are_safe_once_their_folder_is() {
    let (_folder, root, journal) = child("change_names");
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(path, _)| path.clone()).collect()
    };
    for files in cuts(&root, &journal, Tear::None, None) {
        assert_eq!(names(&files), ["safe/current", "safe/linked", "safe/removed"]);
        assert_eq!(content(&files, "safe/current"), Some(&b"old"[..]));
    }
    // In between: what stays of the changes is a beginning of them.
    let some = cuts(&root, &journal, Tear::Prefix, None);
    assert!(some.iter().any(|files| content(files, "safe/current") == Some(b"new")
        && content(files, "safe/removed").is_some()));
    assert!(
        some.iter().all(|files| content(files, "safe/link").is_none()
            || content(files, "safe/removed").is_none())
    );
}

/// Cuts the power of the log and the tables at one of so many points.
fn enumerate(flags: &[&str]) -> (ExitStatus, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_crash")).arg("--enumerate").args(flags).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    // Not captured: the counts are to be seen.
    holdfast_benches::say(&text);
    (status, text)
}

/// The bounded form of `target/release/crash --enumerate`, which cuts at every point.
#[test]
fn the_log_and_the_tables_survive_a_power_loss_at_any_point() {
    let (status, text) = enumerate(&["--every", "5"]);
    assert!(status.success(), "{text}");
}

/// The control: without syncs of the log it must find what is lost.
#[test]
fn without_syncs_the_enumeration_finds_differences() {
    let (status, text) = enumerate(&["--every", "150", "--no-sync"]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("DIFFERENCE"), "{text}");
}
