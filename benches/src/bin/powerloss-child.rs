//! The program under the shim: `powerloss-child SCENARIO FOLDER` does what its scenario's function
//! says, in that folder. Two of them make writes that are all known, for the tests of the shim; the
//! others work with the real log and tables.
#![expect(clippy::unwrap_used, reason = "its test wants it to end on any error")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use holdfast_benches::enumeration;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    match &words[..] {
        [_, scenario, root] if scenario == "write_in_every_way" => {
            write_in_every_way(Path::new(root));
        }
        [_, scenario, root] if scenario == "change_names" => change_names(Path::new(root)),
        [_, scenario, root] if scenario == "play" => enumeration::play(Path::new(root)).unwrap(),
        [_, scenario, root] if scenario == "recover" => {
            enumeration::recover(Path::new(root)).unwrap();
        }
        _ => panic!("powerloss-child write_in_every_way|change_names|play|recover FOLDER"),
    }
}

fn sync_folder(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn write_in_every_way(root: &Path) {
    // Appended through two handles of the file, one of them a copy.
    let mut log = OpenOptions::new().create(true).append(true).open(root.join("log")).unwrap();
    let mut copy = log.try_clone().unwrap();
    log.write_all(b"one ").unwrap();
    copy.write_all(b"two ").unwrap();
    copy.sync_data().unwrap();
    sync_folder(root);
    drop(copy);
    log.write_all(&[b'x'; 10_000]).unwrap();
    // Written at places, synced, and cut short without a sync.
    let table = File::create(root.join("table")).unwrap();
    table.write_all_at(b"........", 0).unwrap();
    table.write_all_at(b"AB", 3).unwrap();
    table.sync_all().unwrap();
    sync_folder(root);
    table.write_all_at(b"ZZ", 0).unwrap();
    table.set_len(4).unwrap();
    // Synced, but its name is not.
    let mut nameless = File::create(root.join("nameless")).unwrap();
    nameless.write_all(b"safe and lost").unwrap();
    nameless.sync_all().unwrap();
}

fn change_names(root: &Path) {
    fs::create_dir(root.join("safe")).unwrap();
    sync_folder(root);
    let put = |name: &str, text: &str| {
        let mut file = File::create(root.join("safe").join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.sync_all().unwrap();
    };
    put("current", "old");
    put("removed", "removed");
    put("linked", "linked");
    sync_folder(&root.join("safe"));
    put("next", "new");
    fs::rename(root.join("safe/next"), root.join("safe/current")).unwrap();
    fs::remove_file(root.join("safe/removed")).unwrap();
    fs::hard_link(root.join("safe/linked"), root.join("safe/link")).unwrap();
    // A folder's descriptor that libc closed by itself; its number is the socket's now.
    fs::create_dir(root.join("gone")).unwrap();
    fs::write(root.join("gone/file"), "x").unwrap();
    fs::remove_dir_all(root.join("gone")).unwrap();
    let (mut socket, _other_end) = UnixStream::pair().unwrap();
    socket.write_all(b"to no file").unwrap();
    // Synced itself, in a folder that is synced itself, which nobody synced into the root.
    fs::create_dir(root.join("lost")).unwrap();
    fs::write(root.join("lost/file"), "x").unwrap();
    File::open(root.join("lost/file")).unwrap().sync_all().unwrap();
    sync_folder(&root.join("lost"));
}
