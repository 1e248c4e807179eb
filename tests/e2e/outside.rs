//! What happens outside of the node's namespaces: whether the machine has what is needed, the namespaces themselves, and taking everything
//! away again. Whatever runs inside dies with the first process there, and its mounts and network go with it; what is left for us are
//! cgroups, a folder, and settings of the kernel that the kubelet changes for the whole machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::image;
use crate::node::{APP_IMAGE, FLOODWAY_IMAGE, PAUSE_IMAGE, kube_tools};

/// Programs of the system, and the packages of Debian that have them.
const PROGRAMS: [(&str, &str); 13] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("iptables", "iptables"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("curl", "curl"),
];

/// Programs that `tests/tools/build.sh node` builds.
const BUILT: [&str; 13] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "helm",
    "coredns",
    "ptp",
    "loopback",
    "host-local",
    "portmap",
];

/// What the kubelet sets for the whole machine.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// The first process inside. Arguments: the command. Folders that programs insist on are there only, and empty. Orphans end up here, so
/// it waits for whatever ends.
const INSIDE: &str = r#"
set -e
for folder in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 floodway-e2e "$folder"; done
ip link set lo up
ip link add node0 type veth peer name node1
ip addr add 10.77.0.1/24 dev node0
ip link set node0 up
ip link set node1 up
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward
"$@" &
wait $!
"#;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Runs the scenarios whose names contain one of `wanted`, or all. `--write` keeps figures in docs/benchmarks.md, `--keep` leaves the node up
/// at the end, until Ctrl-C, and `--keep-files` its folder with all logs.
pub(crate) fn run(wanted: &[&str]) -> ExitCode {
    let unknown = |word: &&&str| word.starts_with("--") && !["--write", "--keep", "--keep-files"].contains(*word);
    if let Some(word) = wanted.iter().find(unknown) {
        eprintln!(
            "error: {word} is not known; there are --write, --keep and --keep-files, and parts of the names of scenarios"
        );
        return ExitCode::FAILURE;
    }
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        println!(
            "End-to-end tests: SKIPPED. They bring up a Kubernetes node, which needs Linux and root; run `make e2e` as root there."
        );
        return ExitCode::SUCCESS;
    }
    if let Err(missing) = prerequisites() {
        eprintln!("error: {missing}");
        return ExitCode::FAILURE;
    }
    sweep();
    let name = format!("floodway-e2e-{}", std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
    let settings = settings();
    let outcome = prepare(&dir, &name).and_then(|()| inside(&dir, wanted));
    let kept = wanted.contains(&"--keep-files");
    let left = clean_up(&dir, &name, &settings, kept);
    for line in &left {
        eprintln!("error: left behind: {line}");
    }
    if left.is_empty() {
        println!(
            "Nothing is left behind: no process, mount, interface or cgroup{}.",
            if kept { "" } else { ", and no file" }
        );
    }
    match outcome {
        Ok(true) if left.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is missing and how to get it.
fn prerequisites() -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let there = |program: &str| path.split(':').any(|folder| Path::new(folder).join(program).is_file());
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !there(program)).collect();
    if !missing.is_empty() {
        let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        return Err(format!(
            "missing: {}. Install them without starting what they bring: 'RUNLEVEL=1 apt-get install {}'",
            programs.join(", "),
            packages.join(" ")
        ));
    }
    let missing: Vec<_> = BUILT.iter().filter(|tool| !kube_tools().join(tool).is_file()).copied().collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!("missing in target/kube-tools: {}. Run 'tests/tools/build.sh node'", missing.join(", "))),
    }
}

/// The folder, the cgroups and the images.
fn prepare(dir: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for hierarchy in hierarchies() {
        let ours = hierarchy.join(name);
        fs::create_dir(&ours)?;
        // A cpuset of cgroup v1 begins empty, and takes no process then.
        let second = hierarchy.join("cgroup.controllers").exists();
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| !second) {
            if let Ok(text) = fs::read_to_string(hierarchy.join(file)) {
                fs::write(ours.join(file), text)?;
            }
        }
    }
    image::write_app(&dir.join("app.tar"), &[(APP_IMAGE, &[]), (PAUSE_IMAGE, &["pause"])])?;
    match (std::env::var_os("FLOODWAY_E2E_IMAGE"), std::env::var_os("FLOODWAY_E2E_BINARY")) {
        (Some(image), _) => fs::copy(image, dir.join("floodway.tar")).map(drop),
        (None, binary) => {
            let binary = binary.map_or_else(|| env!("CARGO_BIN_EXE_floodway").into(), PathBuf::from);
            image::write_program(&dir.join("floodway.tar"), &binary, FLOODWAY_IMAGE, &["gateway"])
        }
    }
}

/// The roots of cgroups: one of version 2, or those of version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir() && !path.is_symlink() && path.join("cgroup.procs").exists()).collect()
}

/// Runs this program in new namespaces; whether it succeeded.
fn inside(dir: &Path, wanted: &[&str]) -> io::Result<bool> {
    let mut command = Command::new("setpriv");
    // Whoever dies first takes the rest along: we this command, and it the first process inside, which everything there dies with.
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["--mount-proc", "sh", "-c", INSIDE, "sh"]);
    command.arg(std::env::current_exe()?).arg("inside").arg(dir).args(wanted);
    // A panic says where; the way there is that of every test.
    let mut child = command.env("RUST_BACKTRACE", "0").spawn()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            let tick = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! {
                () = tick => {}
                _ = int.recv() => break,
                _ = term.recv() => break,
            }
        }
        println!("Interrupted: taking the node down.");
        end(&mut child)?;
        Ok(false)
    })
}

/// Ends what runs inside at once, and waits for it.
fn end(child: &mut Child) -> io::Result<()> {
    // setpriv becomes unshare, whose only child is the first process inside; that is gone once all others are.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
    child.kill()?;
    child.wait()?;
    let began = Instant::now();
    for first in children.split_whitespace() {
        while Path::new("/proc").join(first).exists() && began.elapsed() < Duration::from_secs(30) {
            pause(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Takes away what outlives the namespaces; what it could not.
fn clean_up(dir: &Path, name: &str, settings: &[(PathBuf, String)], keep: bool) -> Vec<String> {
    let mut left = Vec::new();
    for hierarchy in hierarchies() {
        let ours = hierarchy.join(name);
        if let Err(error) = remove_cgroup(&ours) {
            left.push(format!("{}: {error}", ours.display()));
        }
    }
    if keep {
        println!("Logs and state are kept in {}.", dir.display());
    } else if let Err(error) = fs::remove_dir_all(dir) {
        left.push(format!("{}: {error}", dir.display()));
    }
    for (file, before) in settings {
        if fs::read_to_string(file).is_ok_and(|now| now != *before)
            && let Err(error) = fs::write(file, before)
        {
            left.push(format!("{}: {error}", file.display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    left.extend(interfaces.lines().filter(|line| line.contains("node0:")).map(|_| "interface node0".to_owned()));
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let of = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if of.contains(name) || command.contains(&*dir.to_string_lossy()) {
            left.push(format!("process {} {command}", process.file_name().to_string_lossy()));
        }
    }
    left
}

/// Removes a cgroup and those in it, once the kernel has let go of their last processes.
fn remove_cgroup(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
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

/// Waits where no runtime does.
#[expect(clippy::disallowed_methods, reason = "there is no runtime to keep from its work")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn settings() -> Vec<(PathBuf, String)> {
    let files = SETTINGS.iter().map(|name| Path::new("/proc/sys").join(name));
    files.filter_map(|file| fs::read_to_string(&file).ok().map(|text| (file, text))).collect()
}

/// Takes away what runs left that were killed.
fn sweep() {
    let stale = |name: &str| {
        let process = name.strip_prefix("floodway-e2e-").filter(|id| id.parse::<u32>().is_ok());
        process.is_some_and(|id| !Path::new("/proc").join(id).exists())
    };
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| stale(name)).collect()
    };
    for hierarchy in hierarchies() {
        for name in names(&hierarchy) {
            let _ = remove_cgroup(&hierarchy.join(name));
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for name in names(folder) {
        let _ = fs::remove_dir_all(folder.join(name));
    }
}
