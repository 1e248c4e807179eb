//! The folder changes while it is served: every way in which editors and Kubernetes change files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::server::{Server, eventually};

fn route(name: &str, path: &str, body: &str) -> String {
    format!(
        "apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: {name}}}\nspec:\n  rules:\n    \
         - matches: [{{path: {{value: {path}}}}}]\n      respond: {{status: 200, body: {body}}}\n"
    )
}

fn start(dir: &Path) -> Server {
    Server::start(dir, &["--log", "info"])
}

#[test]
fn files_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), route("a", "/a", "one")).unwrap();
    let server = start(dir.path());
    server.waits_for("/a", 200, "one");

    // Written in place, as `cat >` does.
    fs::write(dir.path().join("a.yaml"), route("a", "/a", "two")).unwrap();
    server.waits_for("/a", 200, "two");

    // Written beside and renamed, as editors do.
    fs::write(dir.path().join(".a.yaml.swp"), route("a", "/a", "three")).unwrap();
    fs::rename(dir.path().join(".a.yaml.swp"), dir.path().join("a.yaml")).unwrap();
    server.waits_for("/a", 200, "three");

    // More documents, another ending, and a folder within.
    fs::write(dir.path().join("b.yml"), format!("{}---\n{}", route("b", "/b", "b"), route("c", "/c", "c"))).unwrap();
    fs::create_dir(dir.path().join("more")).unwrap();
    fs::write(dir.path().join("more/d.yaml"), route("d", "/d", "d")).unwrap();
    fs::write(dir.path().join("not.txt"), route("e", "/e", "e")).unwrap();
    for path in ["b", "c", "d"] {
        server.waits_for(&format!("/{path}"), 200, path);
    }
    assert_eq!(server.get("/e").0, 404);

    fs::remove_file(dir.path().join("b.yml")).unwrap();
    eventually("b is gone", || server.get("/b").0 == 404);
    assert_eq!(server.get("/a"), (200, "three".to_owned()));
}

#[test]
fn a_file_that_is_being_written_keeps_its_last_version() {
    let dir = tempfile::tempdir().unwrap();
    let both = |body: &str| (route("a", "/a", body), route("b", "/b", body));
    let (a, b) = both("one");
    fs::write(dir.path().join("a.yaml"), format!("{a}---\n{b}")).unwrap();
    let server = start(dir.path());
    server.waits_for("/b", 200, "one");

    // The first half of the file is sound by itself.
    let (a, b) = both("two");
    let mut file = fs::File::create(dir.path().join("a.yaml")).unwrap();
    file.write_all(a.as_bytes()).unwrap();
    fs::write(dir.path().join("c.tmp"), route("c", "/c", "c")).unwrap();
    fs::rename(dir.path().join("c.tmp"), dir.path().join("c.yaml")).unwrap();
    eventually("another file is read meanwhile", || {
        file.write_all(b"# and so on\n").unwrap();
        server.get("/c").0 == 200
    });
    assert_eq!(server.get("/a"), (200, "one".to_owned()));
    assert_eq!(server.get("/b"), (200, "one".to_owned()));
    write!(file, "---\n{b}").unwrap();
    drop(file);
    server.waits_for("/a", 200, "two");
    server.waits_for("/b", 200, "two");
}

#[test]
fn many_files_at_once_are_all_seen() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    for index in 0..200 {
        fs::write(dir.path().join("new.tmp"), route(&format!("r{index}"), &format!("/r{index}"), "r")).unwrap();
        fs::rename(dir.path().join("new.tmp"), dir.path().join(format!("{index}.yaml"))).unwrap();
    }
    eventually("all of them are served", || (0..200).all(|index| server.get(&format!("/r{index}")).0 == 200));
    for index in 0..200 {
        fs::remove_file(dir.path().join(format!("{index}.yaml"))).unwrap();
    }
    eventually("none of them is", || (0..200).all(|index| server.get(&format!("/r{index}")).0 == 404));
}

#[test]
fn a_config_map_mount_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let version = |name: &str, body: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("a.yaml"), route("a", "/a", body)).unwrap();
    };
    version("..2026_01", "one");
    symlink("..2026_01", dir.path().join("..data")).unwrap();
    symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    let server = start(dir.path());
    server.waits_for("/a", 200, "one");

    // What the kubelet does: a new folder, and one rename of the link to it.
    version("..2026_02", "two");
    symlink("..2026_02", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    fs::remove_dir_all(dir.path().join("..2026_01")).unwrap();
    server.waits_for("/a", 200, "two");
    assert!(!server.said().contains("is already in"), "{}", server.said());
}

#[test]
fn a_folder_that_is_replaced_is_followed() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("conf");
    let version = |name: &str, body: &str| {
        fs::create_dir(parent.path().join(name)).unwrap();
        fs::write(parent.path().join(name).join("a.yaml"), route("a", "/a", body)).unwrap();
    };
    version("conf", "one");
    let server = start(&dir);
    server.waits_for("/a", 200, "one");

    fs::rename(&dir, parent.path().join("old")).unwrap();
    eventually("it says so", || server.said().contains("the folder cannot be read; keeping what was read before"));
    assert_eq!(server.get("/a"), (200, "one".to_owned()));
    version("conf", "two");
    server.waits_for("/a", 200, "two");
    // The watch is on the new folder now.
    fs::write(dir.join("a.yaml"), route("a", "/a", "three")).unwrap();
    server.waits_for("/a", 200, "three");
}

#[test]
fn a_broken_file_keeps_its_last_good_version_and_is_told_once_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, route("a", "/a", "one")).unwrap();
    let server = start(dir.path());
    server.waits_for("/a", 200, "one");

    let broken = format!("{}---\n{}", route("a", "/a", "two"), route("b", "b", "b"));
    fs::write(&file, &broken).unwrap();
    let told = format!("{}:14:18: document 2: spec.rules[0].matches[0].path: ", file.display());
    eventually("it is told", || server.said().contains(&told));
    assert_eq!(server.get("/a"), (200, "one".to_owned()));

    fs::write(dir.path().join("c.yaml"), route("c", "/c", "c")).unwrap();
    server.waits_for("/c", 200, "c");
    assert_eq!(server.said().matches(&told).count(), 1, "{}", server.said());

    fs::write(&file, "kind: [\n").unwrap();
    eventually("the new error is told", || {
        server.said().contains(&format!("{}:1:7: unclosed bracket", file.display()))
    });
    assert_eq!(server.get("/a"), (200, "one".to_owned()));

    fs::write(&file, route("a", "/a", "three")).unwrap();
    server.waits_for("/a", 200, "three");
    eventually("it is told that all is well", || server.said().contains(&format!("{}: sound again", file.display())));
}

#[test]
fn the_same_object_twice_is_told_and_the_first_file_wins() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), route("same", "/a", "first")).unwrap();
    fs::write(dir.path().join("b.yaml"), route("same", "/b", "second")).unwrap();
    let server = start(dir.path());
    server.waits_for("/a", 200, "first");
    assert_eq!(server.get("/b").0, 404);
    let (a, b) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    let told = format!("{}:1:1: ProxyRoute default/same is already in {}:1", b.display(), a.display());
    assert!(server.said().contains(&told), "{}", server.said());
    fs::remove_file(a).unwrap();
    server.waits_for("/b", 200, "second");
}

#[test]
fn what_is_not_served_as_written_is_logged_once() {
    let dir = tempfile::tempdir().unwrap();
    let lost = route("b", "/b", "b").replace("respond: {status: 200, body: b}", "backends: [{upstream: {name: lost}}]");
    fs::write(dir.path().join("a.yaml"), route("a", "/a", "one")).unwrap();
    fs::write(dir.path().join("b.yaml"), lost).unwrap();
    let server = start(dir.path());
    let told = "ProxyRoute default/b: spec.rules[0].backends[0].upstream: ProxyUpstream default/lost does not exist";
    eventually("the reference is told", || server.said().contains(told));

    fs::write(dir.path().join("c.yaml"), route("c", "/a", "two")).unwrap();
    let loser =
        "ProxyRoute default/c: spec.rules[0].matches[0]: ProxyRoute default/a, which comes first, has the same match";
    eventually("the conflict is told", || server.said().contains(loser));
    assert_eq!(server.get("/a"), (200, "one".to_owned()));
    assert_eq!(server.said().matches(told).count(), 1, "{}", server.said());
}
