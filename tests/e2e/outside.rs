//! What happens outside of the node's namespaces: whether the machine has what is needed, the namespaces themselves, and taking everything
//! away again. Whatever runs inside dies with the first process there, and its mounts and network go with it; what is left for us are
//! cgroups, a folder, and settings of the kernel that the kubelet changes for the whole machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::cgroups::{self, Changed};
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

/// How what belongs to a run is named; the id of its process follows.
const PREFIX: &str = "floodway-e2e-";

/// What files of the kernel say.
type Settings = BTreeMap<PathBuf, String>;

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

/// Where the logs of a run are that went wrong, in target. The next such run replaces them.
const LOGS: &str = "e2e-logs";
/// What a run notes in its folder of the settings that were there before, for the case that it is killed.
const BEFORE: &str = "settings-before.json";

/// Tells people, if they listen: nothing is left behind because somebody has read enough (`make e2e | head`).
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(io::stdout(), $($text)*);
    }};
}

/// Runs the scenarios whose names contain one of `wanted`, or all. `--write` keeps figures in docs/benchmarks.md, `--keep` leaves the node up
/// at the end, until Ctrl-C, and `--keep-files` its folder with all logs.
pub(crate) fn run(wanted: &[&str]) -> ExitCode {
    let unknown = |word: &&&str| word.starts_with("--") && !["--write", "--keep", "--keep-files"].contains(*word);
    if let Some(word) = wanted.iter().find(unknown) {
        say!(
            "error: {word} is not known; there are --write, --keep and --keep-files, and parts of the names of scenarios"
        );
        return ExitCode::FAILURE;
    }
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        say!(
            "End-to-end tests: SKIPPED. They bring up a Kubernetes node, which needs Linux and root; run `make e2e` as root there."
        );
        return ExitCode::SUCCESS;
    }
    let done = prerequisites().map_err(io::Error::other).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(whole(wanted))
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// From nothing to nothing; whether all went well.
async fn whole(wanted: &[&str]) -> io::Result<bool> {
    // From here on nobody ends us before everything is taken away again.
    let mut told = Told::listen()?;
    sweep();
    let name = format!("{PREFIX}{}", std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
    fs::create_dir_all(&dir)?;
    let settings = settings();
    let outcome = match note(&dir, &settings).and_then(|()| cgroups::make(&name)) {
        Ok(changed) => {
            let outcome = match images(&dir) {
                Ok(()) => inside(&dir, wanted, &mut told).await,
                Err(error) => Err(error),
            };
            (outcome, changed)
        }
        Err(error) => (Err(error), Changed::default()),
    };
    let (outcome, changed) = outcome;
    if matches!(outcome, Ok(Ended::Failed)) {
        keep_logs(&dir);
    }
    let kept = wanted.contains(&"--keep-files");
    let left = clean_up(&dir, &name, &settings, &changed, kept);
    for line in &left {
        say!("error: left behind: {line}");
    }
    if left.is_empty() {
        let files = if kept { "" } else { ", and no file" };
        say!("Nothing is left behind: no process, mount, interface or cgroup{files}.");
    }
    Ok(matches!(outcome?, Ended::Well) && left.is_empty())
}

/// How what ran inside came to its end.
enum Ended {
    Well,
    Failed,
    Interrupted,
}

/// The signals by which somebody asks for the end.
struct Told([Signal; 3]);

impl Told {
    fn listen() -> io::Result<Told> {
        Ok(Told([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn wanted(&mut self) {
        let [int, term, hangup] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hangup.recv() => {}
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

/// The images, in the folder.
fn images(dir: &Path) -> io::Result<()> {
    image::write_app(&dir.join("app.tar"), &[(APP_IMAGE, &[]), (PAUSE_IMAGE, &["pause"])])?;
    match (std::env::var_os("FLOODWAY_E2E_IMAGE"), std::env::var_os("FLOODWAY_E2E_BINARY")) {
        (Some(image), _) => fs::copy(image, dir.join("floodway.tar")).map(drop),
        (None, binary) => {
            let binary = binary.map_or_else(|| env!("CARGO_BIN_EXE_floodway").into(), PathBuf::from);
            image::write_program(&dir.join("floodway.tar"), &binary, FLOODWAY_IMAGE, &["gateway"])
        }
    }
}

/// Runs this program in new namespaces.
async fn inside(dir: &Path, wanted: &[&str], told: &mut Told) -> io::Result<Ended> {
    let mut command = Command::new("setpriv");
    // Whoever dies first takes the rest along: we this command, and it the first process inside, which everything there dies with.
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["--mount-proc", "sh", "-c", INSIDE, "sh"]);
    command.arg(std::env::current_exe()?).arg("inside").arg(dir).args(wanted);
    // Ctrl-C of a terminal is for us alone. A panic says where; the way there is that of every test.
    let mut child = command.process_group(0).env("RUST_BACKTRACE", "0").stdin(Stdio::null()).spawn()?;
    loop {
        tokio::select! {
            biased;
            () = told.wanted() => break,
            () = sleep(Duration::from_millis(100)) => {}
        }
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { Ended::Well } else { Ended::Failed });
        }
    }
    say!("Interrupted: taking the node down.");
    end(&mut child)?;
    Ok(Ended::Interrupted)
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
fn clean_up(dir: &Path, name: &str, settings: &Settings, changed: &Changed, keep: bool) -> Vec<String> {
    let mut left = cgroups::remove(name, changed);
    if keep {
        say!("Logs and state are kept in {}.", dir.display());
    } else if let Err(error) = fs::remove_dir_all(dir) {
        left.push(format!("{}: {error}", dir.display()));
    }
    left.extend(restore(settings));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    left.extend(interfaces.lines().filter(|line| line.contains("node0:")).map(|_| "interface node0".to_owned()));
    // Those that were killed may take a moment.
    let began = Instant::now();
    while !processes(dir, name).is_empty() && began.elapsed() < Duration::from_secs(10) {
        pause(Duration::from_millis(50));
    }
    left.extend(processes(dir, name));
    left
}

/// What runs in our cgroups, or with our folder in its command.
fn processes(dir: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let of = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if of.contains(name) || command.contains(&*dir.to_string_lossy()) {
            found.push(format!("process {} {command}", process.file_name().to_string_lossy()));
        }
    }
    found
}

/// Puts the logs where they stay, for whoever looks for the reason.
fn keep_logs(dir: &Path) {
    let logs = dir.join("logs");
    if !logs.exists() {
        return;
    }
    for part in ["etcd.log", "kube-apiserver.log"] {
        let _ = fs::copy(dir.join("control-plane").join(part), logs.join(part));
    }
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(LOGS);
    let _ = fs::remove_dir_all(&kept);
    match fs::rename(&logs, &kept) {
        Ok(()) => say!("Logs of the node and its pods are in target/{LOGS}."),
        Err(error) => say!("The logs could not be kept: {error}"),
    }
}

/// Waits where no runtime does.
#[expect(clippy::disallowed_methods, reason = "there is no runtime to keep from its work")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn settings() -> Settings {
    let files = SETTINGS.iter().map(|name| Path::new("/proc/sys").join(name));
    files.filter_map(|file| fs::read_to_string(&file).ok().map(|text| (file, text))).collect()
}

fn note(dir: &Path, settings: &Settings) -> io::Result<()> {
    fs::write(dir.join(BEFORE), serde_json::to_string(settings)?)
}

/// Sets what has changed to what it was; what could not be.
fn restore(settings: &Settings) -> Vec<String> {
    let changed = settings.iter().filter(|(file, before)| fs::read_to_string(file).is_ok_and(|now| now != **before));
    let failed = changed.filter_map(|(file, before)| Some((file, fs::write(file, before).err()?)));
    failed.map(|(file, error)| format!("{}: {error}", file.display())).collect()
}

/// Takes away what runs left that were killed, and says so.
fn sweep() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut stale: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    stale.extend(cgroups::names());
    stale.retain(|name| {
        let process = name.strip_prefix(PREFIX).filter(|id| id.parse::<u32>().is_ok());
        process.is_some_and(|id| !Path::new("/proc").join(id).exists())
    });
    stale.sort();
    stale.dedup();
    for name in stale {
        let dir = folder.join(&name);
        let before = fs::read_to_string(dir.join(BEFORE)).unwrap_or_default();
        let mut left = restore(&serde_json::from_str(&before).unwrap_or_default());
        left.extend(cgroups::remove(&name, &Changed::default()));
        let _ = fs::remove_dir_all(&dir);
        say!("Took away what a run left that was killed ({name}).");
        for line in left {
            say!("  except {line}");
        }
    }
}
