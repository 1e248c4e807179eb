//! The cgroups of a run, below which the kubelet makes those of its pods: one in each hierarchy of version 1, or one of version 2. They
//! outlive the namespaces, so they are made and removed outside of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::outside::pause;

/// Where the system has mounted them.
const ROOT: &str = "/sys/fs/cgroup";
/// What the kubelet insists on having in its own cgroup of version 2, if the kernel has it at all.
const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "memory", "hugetlb", "pids"];

/// What `make` did to the cgroup above ours: the controllers that nobody there had handed on before.
#[derive(Default)]
pub(crate) struct Changed(Vec<&'static str>);

pub(crate) fn make(name: &str) -> io::Result<Changed> {
    let mut changed = Changed::default();
    for hierarchy in hierarchies() {
        let ours = hierarchy.join(name);
        if is_second(&hierarchy) && hierarchy == Path::new(ROOT) {
            changed = Changed(hand_on(&hierarchy)?);
            fs::create_dir(&ours)?;
            hand_on(&ours)?;
            continue;
        }
        fs::create_dir(&ours)?;
        // A cpuset of version 1 begins empty, and takes no process then.
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| !is_second(&hierarchy)) {
            if let Ok(text) = fs::read_to_string(hierarchy.join(file)) {
                fs::write(ours.join(file), text)?;
            }
        }
    }
    Ok(changed)
}

/// Removes the cgroups of that name and those in them, and takes back what was changed; what could not be.
pub(crate) fn remove(name: &str, changed: &Changed) -> Vec<String> {
    let mut left = Vec::new();
    for ours in hierarchies().iter().map(|hierarchy| hierarchy.join(name)) {
        if let Err(error) = remove_all(&ours) {
            left.push(format!("{}: {error}", ours.display()));
        }
    }
    for controller in &changed.0 {
        // Somebody else may hand it on by now.
        let _ = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("-{controller}"));
    }
    left
}

/// The names of cgroups that are directly below a root.
pub(crate) fn names() -> Vec<String> {
    let entries = hierarchies().into_iter().filter_map(|hierarchy| fs::read_dir(hierarchy).ok()).flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The roots: one of version 2, or those of version 1, which may have one of version 2 without controllers beside them.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(ROOT);
    if is_second(&root) {
        return vec![root];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir() && !path.is_symlink() && path.join("cgroup.procs").exists()).collect()
}

fn is_second(hierarchy: &Path) -> bool {
    hierarchy.join("cgroup.controllers").exists()
}

/// Lets cgroups below `group` have its controllers; those that they could not have before.
fn hand_on(group: &Path) -> io::Result<Vec<&'static str>> {
    let words = |file: &str| -> io::Result<Vec<String>> {
        Ok(fs::read_to_string(group.join(file))?.split_whitespace().map(str::to_owned).collect())
    };
    let (there, handed) = (words("cgroup.controllers")?, words("cgroup.subtree_control")?);
    let mut new = Vec::new();
    for controller in CONTROLLERS {
        let has = |words: &[String]| words.iter().any(|word| word == controller);
        if !has(&there) || has(&handed) {
            continue;
        }
        // cgroups(7), "no internal processes": a cgroup that is not the root of all cannot both have processes and hand on controllers.
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).map_err(|error| {
            let group = group.display();
            let what = format!(
                "the cgroup {group} cannot hand on the controller {controller}: {error}. In a container that is because processes are in it: \
                 give it the cgroups of the machine (--cgroupns=host), or move them: \
                 mkdir {group}/init && for id in $(cat {group}/cgroup.procs); do echo $id >{group}/init/cgroup.procs; done"
            );
            io::Error::new(error.kind(), what)
        })?;
        new.push(controller);
    }
    Ok(new)
}

/// Removes a cgroup and those in it, once the kernel has let go of their last processes.
fn remove_all(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        }
    }
    let began = Instant::now();
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && began.elapsed() < Duration::from_secs(10) => {
                pause(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}
