#![allow(clippy::unwrap_used)]

mod secrets;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::watch::{Seen, Step};
use super::*;
use crate::translate::{Key, Resources};

struct Folder {
    dir: tempfile::TempDir,
    loader: Loader,
    resources: Resources,
    seen: Seen,
    now: Instant,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let loader = Loader::new(dir.path().to_owned());
        Folder { dir, loader, resources: Resources::default(), seen: seen_more(), now: Instant::now() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that looks as if it had been written long ago.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        age(&self.path(name));
    }

    /// Loads; returns whether the resources changed, and what was told.
    fn load(&mut self) -> (bool, Vec<String>) {
        let load = self.look();
        let changed = self.loader.apply(&mut self.resources);
        (changed, load.reports.iter().map(ToString::to_string).collect())
    }

    fn look(&mut self) -> Load {
        self.loader.load(&std::mem::replace(&mut self.seen, seen_more()), self.now)
    }

    /// What is gone stays so.
    fn load_later(&mut self) -> (bool, Vec<String>) {
        let (changed, told) = self.load();
        assert!(!changed, "believed too early");
        self.now += Duration::from_millis(20);
        let (changed, more) = self.load();
        (changed, [told, more].concat())
    }

    /// Writes a file now, whose writer has come so far as far as one knows.
    fn write_now(&mut self, name: &str, text: &str, step: Option<Step>) {
        fs::write(self.path(name), text).unwrap();
        self.seen.paths.insert(name.into(), step);
    }

    fn services(&self) -> Vec<String> {
        self.resources.services.keys().map(ToString::to_string).collect()
    }
}

/// Events of which one may have been lost.
fn seen_more() -> Seen {
    Seen { more: true, ..Seen::default() }
}

fn age(path: &Path) {
    static CLOCK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(10_000);
    let back = Duration::from_secs(CLOCK.fetch_sub(1, std::sync::atomic::Ordering::Relaxed));
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - back).unwrap();
}

fn service(name: &str, port: u16) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n")
}

#[test]
fn every_kind_is_read_with_the_default_namespace() {
    let mut folder = Folder::new();
    folder.write(
        "all.yaml",
        "
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {name: r}
spec: {rules: [{respond: {status: 200}}]}
---
apiVersion: floodway.dev/v1alpha1
kind: ProxyUpstream
metadata: {name: u, namespace: other}
spec: {endpoints: [{address: '127.0.0.1:1'}]}
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}
  - apiVersion: discovery.k8s.io/v1
    kind: EndpointSliceList
    items:
      - apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: s-1, labels: {kubernetes.io/service-name: s}}
        addressType: IPv4
        ports: [{port: 8080}]
        endpoints: [{addresses: [127.0.0.1]}]
",
    );
    let (changed, told) = folder.load();
    assert!(changed && told.is_empty(), "{told:?}");
    let resources = &folder.resources;
    let route = &resources.routes[&Key::new("default", "r")];
    assert_eq!(route.created, None);
    assert!(resources.upstreams.contains_key(&Key::new("other", "u")));
    assert!(resources.services.contains_key(&Key::new("default", "s")));
    assert_eq!(resources.slices[&Key::new("default", "s")].get("s-1").unwrap().endpoints.len(), 1);
    assert_eq!(folder.load(), (false, vec![]));
}

#[test]
fn what_does_not_change_keeps_its_arc_also_in_a_file_that_does() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &(service("a", 1) + &service("b", 1)));
    folder.load();
    let arc = |folder: &Folder, name: &str| Arc::clone(&folder.resources.services[&Key::new("default", name)]);
    let (a, b) = (arc(&folder, "a"), arc(&folder, "b"));
    folder.write("a.yaml", &(service("b", 2) + &service("a", 1)));
    assert_eq!(folder.load(), (true, vec![]));
    assert!(Arc::ptr_eq(&a, &arc(&folder, "a")));
    assert!(!Arc::ptr_eq(&b, &arc(&folder, "b")));
}

#[test]
fn a_file_counts_as_a_whole_and_is_told_once() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a", 1));
    folder.write("b.yaml", &service("b", 1));
    folder.load();
    folder.write("a.yaml", &(service("new", 1) + &service("worse", 1).replace("port: 1", "port: x")));
    let (changed, told) = folder.load();
    let place = folder.path("a.yaml").display().to_string() + ":10:23: document 2: spec.ports[0].port: ";
    assert!(!changed && told.len() == 1 && told[0].starts_with(&place), "{told:?}");
    assert_eq!(folder.load(), (false, vec![]));
    assert_eq!(folder.services(), ["default/a", "default/b"]);
    // The good version again, from before: nothing changes, and that the error is gone is told once.
    folder.write("a.yaml", &service("a", 1));
    assert_eq!(folder.load(), (false, vec![folder.path("a.yaml").display().to_string() + ": sound again"]));
    assert_eq!(folder.load(), (false, vec![]));
    fs::remove_file(folder.path("a.yaml")).unwrap();
    assert_eq!(folder.load_later(), (true, vec![]));
    assert_eq!(folder.services(), ["default/b"]);
}

#[test]
fn a_file_that_was_just_emptied_is_being_written() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a", 1));
    folder.load();
    fs::write(folder.path("a.yaml"), "").unwrap();
    assert_eq!(folder.load(), (false, vec![]));
    age(&folder.path("a.yaml"));
    assert_eq!(folder.load(), (true, vec![]));
    assert!(folder.services().is_empty());
}

#[test]
fn versions_of_the_same_moment_and_size_are_told_apart() {
    let mut folder = Folder::new();
    fs::write(folder.path("a.yaml"), service("a", 1)).unwrap();
    folder.load();
    folder.write_now("a.yaml", &service("b", 1), Some(Step::Done));
    assert_eq!(folder.load(), (true, vec![]));
    assert_eq!(folder.services(), ["default/b"]);
}

#[test]
fn a_file_is_read_once_its_writer_is_done_or_it_was_left_alone() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &(service("a", 1) + &service("b", 1)));
    folder.load();
    // The first half of what is being written is sound by itself, and would take a Service away.
    folder.write_now("a.yaml", &service("a", 2), Some(Step::Begun));
    let load = folder.look();
    assert_eq!((load.read, load.rejected), (0, 0));
    assert!(load.again.is_some_and(|again| again <= Duration::from_secs(1)), "{:?}", load.again);
    assert!(!folder.loader.apply(&mut folder.resources));
    folder.write_now("a.yaml", &(service("a", 2) + &service("b", 2)), Some(Step::Done));
    assert_eq!(folder.load(), (true, vec![]));
    assert_eq!(folder.resources.services[&Key::new("default", "a")].ports[0].port, 2);
    // A new file that is not whole is not complained of, either, and other files do not wait for it.
    folder.write_now("c.yaml", "kind: [", Some(Step::Begun));
    folder.write_now("d.yaml", &service("d", 1), Some(Step::Done));
    assert_eq!(folder.load(), (true, vec![]));
    assert_eq!(folder.services().len(), 3);
    // Nobody closed it, and nobody goes on.
    age(&folder.path("c.yaml"));
    assert!(folder.load().1[0].contains("c.yaml:1:7: unclosed bracket"));
}

#[test]
fn a_clock_ahead_of_ours_keeps_no_file_from_being_read() {
    let mut folder = Folder::new();
    folder.load();
    folder.write("a.yaml", &service("a", 1));
    let file = fs::File::options().append(true).open(folder.path("a.yaml")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(1000)).unwrap();
    assert_eq!(folder.load(), (true, vec![]));
}

#[test]
fn a_file_that_is_replaced_in_two_steps_is_never_missed() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a", 1));
    folder.load();
    fs::remove_file(folder.path("a.yaml")).unwrap();
    assert_eq!(folder.load(), (false, vec![]));
    assert!(folder.look().again.is_some());
    folder.write("a.yaml", &service("a", 2));
    assert_eq!(folder.load(), (true, vec![]));
    // Under another name it is no second one.
    fs::rename(folder.path("a.yaml"), folder.path("b.yaml")).unwrap();
    assert_eq!(folder.load(), (false, vec![]));
    folder.now += Duration::from_secs(1);
    assert_eq!(folder.load(), (false, vec![]));
    assert_eq!(folder.services(), ["default/a"]);
}

#[test]
fn a_burst_of_files_is_one_change_that_shares_the_rest() {
    let mut folder = Folder::new();
    let name = |index: usize| format!("s-{index}");
    let write = |folder: &mut Folder, indexes: std::ops::Range<usize>, port| {
        for index in indexes {
            folder.write_now(&format!("{index}.yaml"), &service(&name(index), port), Some(Step::Done));
        }
    };
    write(&mut folder, 0..500, 1);
    assert_eq!(folder.look().read, 500);
    folder.load();
    let before = folder.resources.services.clone();
    write(&mut folder, 100..400, 2);
    let load = folder.look();
    assert_eq!((load.read, load.again), (300, None));
    assert!(folder.loader.apply(&mut folder.resources));
    assert!(!folder.loader.apply(&mut folder.resources));
    let differing = folder.resources.services.differing(&before, Arc::ptr_eq).count();
    assert_eq!((differing, folder.resources.services.len()), (300, 500));
}

#[test]
fn links_that_come_to_mean_another_folder_change_all_files_at_once() {
    let mut folder = Folder::new();
    let version = |folder: &Folder, dir: &str, port| {
        fs::create_dir(folder.path(dir)).unwrap();
        for name in ["a", "b"] {
            folder.write(&format!("{dir}/{name}.yaml"), &service(name, port));
        }
    };
    version(&folder, "..1", 1);
    symlink("..1", folder.path("..data")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        symlink(format!("..data/{name}"), folder.path(name)).unwrap();
    }
    assert_eq!(folder.load(), (true, vec![]));
    version(&folder, "..2", 2);
    assert_eq!(folder.load(), (false, vec![]));
    symlink("..2", folder.path("..data_tmp")).unwrap();
    fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    fs::remove_dir_all(folder.path("..1")).unwrap();
    assert_eq!(folder.load(), (true, vec![]));
    assert!(folder.resources.services.values().all(|service| service.ports[0].port == 2));
}

#[test]
fn events_that_name_files_spare_a_look_at_the_others() {
    let mut folder = Folder::new();
    fs::create_dir(folder.path("sub")).unwrap();
    for name in ["a.yaml", "sub/b.yaml", "c.yaml"] {
        folder.write(name, &service(&name.replace(['/', '.'], "-"), 1));
    }
    folder.load();
    // Nobody told of this one, and it is seen by the next look at everything.
    folder.write("c.yaml", &service("c-yaml", 3));
    let told = |folder: &mut Folder, path: &str| {
        folder.seen = Seen { paths: [(path.into(), Some(Step::Done))].into(), more: false };
        folder.look().read
    };
    fs::write(folder.path("sub/b.yaml"), service("sub-b-yaml", 2)).unwrap();
    fs::write(folder.path("scratch"), "").unwrap();
    assert_eq!(told(&mut folder, "scratch"), 0);
    assert_eq!(told(&mut folder, "sub/b.yaml"), 1);
    fs::write(folder.path("sub/a.yaml"), service("new", 2)).unwrap();
    assert_eq!(told(&mut folder, "sub/a.yaml"), 1);
    assert!(folder.loader.apply(&mut folder.resources));
    assert_eq!(folder.resources.services.len(), 4);
    assert_eq!(folder.resources.services[&Key::new("default", "c-yaml")].ports[0].port, 1);
    // A folder, a link, a path of a folder that is not known, one that went: everything is looked at.
    fs::create_dir(folder.path("more")).unwrap();
    assert_eq!(told(&mut folder, "more"), 1);
    for (path, port) in [("more/not/known.yaml", 4), ("sub", 5), ("gone.yaml", 6), ("", 7)] {
        folder.write("c.yaml", &service("c-yaml", port));
        assert_eq!(told(&mut folder, path), 1, "{path}");
    }
    symlink("c.yaml", folder.path("z.yaml")).unwrap();
    folder.write("c.yaml", &service("c-yaml", 8));
    assert_eq!(told(&mut folder, "z.yaml"), 2);
    folder.write("c.yaml", &service("c-yaml", 9));
    assert_eq!(told(&mut folder, "scratch"), 2, "while there are links, any of them may lead elsewhere");
    fs::remove_file(folder.path("z.yaml")).unwrap();
    folder.look();
    folder.now += Duration::from_millis(20);
    folder.look();
    // After a while without a look at everything there is one.
    folder.write("c.yaml", &service("c-yaml", 10));
    assert_eq!(told(&mut folder, "scratch"), 0);
    folder.now += POLL;
    assert_eq!(told(&mut folder, "scratch"), 1);
}

#[test]
fn files_are_in_the_order_of_their_paths() {
    let folder = Folder::new();
    for name in ["b/x.yaml", "b.yaml", "a/z/y.yml", "a.yaml", "b/c/d.yaml", "c.txt"] {
        fs::create_dir_all(folder.path(name).parent().unwrap()).unwrap();
        fs::write(folder.path(name), "").unwrap();
    }
    let files = yaml_files(folder.dir.path()).unwrap();
    assert_eq!(files.len(), 5);
    assert!(files.is_sorted(), "{files:?}");
}

#[test]
fn links_in_circles_and_links_to_nowhere_do_no_harm() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a", 1));
    symlink(".", folder.path("again")).unwrap();
    symlink("nowhere", folder.path("gone.yaml")).unwrap();
    symlink("self.yaml", folder.path("self.yaml")).unwrap();
    let (_, told) = folder.load();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(folder.services(), ["default/a"]);
    assert_eq!(folder.load(), (false, vec![]), "told once");
}

#[test]
fn what_cannot_be_read_any_more_keeps_its_last_good_version() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a", 1));
    folder.write("b.yaml", &service("b", 1));
    folder.load();
    fs::remove_file(folder.path("a.yaml")).unwrap();
    symlink("nowhere", folder.path("a.yaml")).unwrap();
    fs::set_permissions(folder.path("b.yaml"), fs::Permissions::from_mode(0o0)).unwrap();
    let (changed, told) = folder.load();
    assert!(!changed);
    assert!(told[0].contains("a.yaml: cannot be read: "), "{told:?}");
    assert_eq!(folder.services(), ["default/a", "default/b"]);
    // The folder itself goes, too.
    fs::rename(folder.dir.path(), folder.dir.path().with_extension("away")).unwrap();
    let (changed, told) = folder.load();
    assert!(!changed && told[0].contains("the folder cannot be read; keeping what was read before"), "{told:?}");
    assert_eq!(folder.load(), (false, vec![]));
    fs::rename(folder.dir.path().with_extension("away"), folder.dir.path()).unwrap();
    assert!(!folder.load().0);
}

#[test]
fn the_first_of_two_is_served_until_it_goes() {
    let mut folder = Folder::new();
    folder.write("b.yaml", &service("same", 2));
    folder.write("a.yaml", &service("same", 1));
    let (_, told) = folder.load();
    let key = Key::new("default", "same");
    assert!(told[0].contains("b.yaml:2:1: Service default/same is already in "), "{told:?}");
    assert_eq!(folder.resources.services[&key].ports[0].port, 1);
    assert_eq!(folder.load(), (false, vec![]), "told once");
    fs::remove_file(folder.path("a.yaml")).unwrap();
    // What was first is gone, and what there is of it is served at once.
    assert_eq!(folder.load(), (true, vec![]));
    assert_eq!(folder.resources.services[&key].ports[0].port, 2);
}

#[test]
fn the_answers_of_dns_survive_a_reload() {
    let mut folder = Folder::new();
    folder.resources.resolved.insert("a.example".to_owned(), Arc::from([]));
    folder.write("a.yaml", &service("a", 1));
    assert!(folder.load().0);
    assert_eq!(folder.resources.resolved.len(), 1);
}
