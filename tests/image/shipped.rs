//! The image as it is shipped: target/image, or what FLOODWAY_IMAGE names. Run by `make image-check`, which makes it first.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::archive::{Image, run};

const INSIDE: &str = "FLOODWAY_TEST_NETWORK";
const MEGABYTES: u64 = 1_000_000;

pub(crate) fn folder() -> PathBuf {
    std::env::var_os("FLOODWAY_IMAGE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/image"), PathBuf::from)
}

pub(crate) const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

fn image() -> Image {
    Image::read(&folder().join(format!("floodway-{ARCH}.tar")))
}

/// A command in the root file system of the image, which holds nothing else. As root, or in a user namespace.
fn inside(root: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--root"]).arg(root).args(["--wd", "/", "/floodway"]).args(arguments);
    command
}

/// A number of a file, the lowest byte first.
fn number(file: &[u8], at: usize, bytes: usize) -> usize {
    file[at..at + bytes].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte))
}

/// The profile names functions as one toolchain names them. What it says is often run, is in a section of its own.
#[test]
#[ignore = "needs the image: make image-check"]
fn the_program_is_compiled_by_its_profile() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/program.sh");
    let here = String::from_utf8(run(Command::new(script).arg("--profile"))).unwrap();
    let made_for = include_str!("../../deploy/floodway.profdata.txt");
    if made_for != here {
        return println!("the profile is for {}, and this is {}", made_for.trim(), here.trim());
    }
    let program = fs::read(image().root().join("floodway")).unwrap();
    let number = |at, bytes| number(&program, at, bytes);
    // Where the section headers are, how long each is, how many there are, and which has their names.
    let (at, length, count, names) = (number(40, 8), number(58, 2), number(60, 2), number(62, 2));
    let header = |section: usize| at + section * length;
    let name = |section| &program[number(header(names) + 24, 8) + number(header(section), 4)..];
    let often = (0..count).find(|section| name(*section).starts_with(b".text.hot\0"));
    let size = often.map_or(0, |section| number(header(section) + 32, 8));
    assert!(size > 1_000_000, "{size} bytes are run often: 'make profile' makes the profile anew");
}

#[test]
#[ignore = "needs the image: make image-check"]
fn the_program_is_static() {
    let program = fs::read(image().root().join("floodway")).unwrap();
    let number = |at, bytes| number(&program, at, bytes);
    // ELF, 64 bits: where the program headers are, how long each is, and how many there are.
    let (at, length, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds: Vec<usize> = (0..count).map(|header| number(at + header * length, 4)).collect();
    const LOAD: usize = 1;
    const INTERPRETER: usize = 3;
    assert!(kinds.contains(&LOAD), "{kinds:?}");
    assert!(!kinds.contains(&INTERPRETER), "the program asks for a dynamic linker: {kinds:?}");
    // Still anywhere in memory.
    const SHARED: usize = 3;
    assert_eq!(number(16, 2), SHARED, "the program is not position-independent");
}

/// The same program comes out wherever it is made, and says nothing of whoever made it.
#[test]
#[ignore = "needs the image: make image-check"]
fn the_program_does_not_say_where_it_was_made() {
    let program = fs::read(image().root().join("floodway")).unwrap();
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo")).unwrap();
    for place in [home + "/registry/", concat!(env!("CARGO_MANIFEST_DIR"), "/target/").to_owned()] {
        let found = memchr::memmem::find(&program, place.as_bytes());
        assert_eq!(found, None, "{place} is in the program");
    }
}

/// What registries keep and nodes pull is held to the aim. What it takes on a disk misses that (docs/benchmarks.md says by how much,
/// and why); it must not grow unnoticed.
#[test]
#[ignore = "needs the image: make image-check"]
fn it_is_small() {
    let image = image();
    let (packed, unpacked) = (image.packed as f64 / 1e6, image.unpacked as f64 / 1e6);
    println!("image size: {packed:.1} MB to pull, {unpacked:.1} MB unpacked");
    assert!(image.packed <= 15 * MEGABYTES, "{packed:.1} MB to pull");
    assert!(image.unpacked <= 24 * MEGABYTES, "{unpacked:.1} MB unpacked");
}

#[test]
#[ignore = "needs the image: make image-check"]
fn the_program_runs_where_there_is_nothing_else() {
    let image = image();
    let version = String::from_utf8(run(&mut inside(&image.root(), &["--version"]))).unwrap();
    assert_eq!(version.trim(), concat!("floodway ", env!("CARGO_PKG_VERSION")));
    fs::create_dir(image.root().join("routes")).unwrap();
    run(&mut inside(&image.root(), &["check", "/routes"]));
}

/// The libc of a static program may want to load modules for names, which are not there.
#[test]
#[ignore = "needs the image: make image-check"]
fn names_are_resolved_where_there_is_nothing_else() {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
    unshare.args(["--ignored", "--exact", "--nocapture", "shipped::resolves_as_in_a_pod"]);
    let output = unshare.env(INSIDE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// The API server by the name that it has in a pod, found by the search list and the resolver that a pod has.
#[test]
#[ignore = "runs within the test before it"]
fn resolves_as_in_a_pod() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let image = image();
    let root = image.root();
    let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
    std::thread::spawn(move || answer(&resolver, "kubernetes.default.svc.cluster.local"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = format!("https://kubernetes.default.svc:{}", listener.local_addr().unwrap().port());
    fs::write(
        root.join("etc/resolv.conf"),
        "nameserver 127.0.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
    )
    .unwrap();
    let named = |kind: &str, fields: &str| format!("{kind}s: [{{name: a, {kind}: {fields}}}]\n");
    let config = "apiVersion: v1\nkind: Config\ncurrent-context: a\n".to_owned()
        + &named("cluster", &format!("{{server: '{server}', insecure-skip-tls-verify: true}}"))
        + &named("context", "{cluster: a, user: a}")
        + &named("user", "{token: a}");
    fs::write(root.join("kubeconfig"), config).unwrap();
    let flags = ["gateway", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut gateway = inside(&root, &flags);
    let mut gateway = Killed(gateway.env("KUBECONFIG", "/kubeconfig").stdout(Stdio::null()).spawn().unwrap());

    listener.set_nonblocking(true).unwrap();
    let began = Instant::now();
    let mut connection = loop {
        match listener.accept() {
            Ok((connection, _)) => break connection,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(gateway.0.try_wait().unwrap().is_none(), "the gateway ended");
        assert!(began.elapsed() < Duration::from_secs(60), "nobody came: the name was not resolved");
        std::thread::sleep(Duration::from_millis(10));
    };
    connection.set_nonblocking(false).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut hello = [0; 4096];
    let read = connection.read(&mut hello).unwrap();
    let name = b"kubernetes.default.svc";
    assert!(hello[..read].windows(name.len()).any(|window| window == name), "no ClientHello for the name");
    drop(gateway);
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A DNS server that knows one name, and an IPv4 address for it (RFC 1035, 4.1).
fn answer(resolver: &UdpSocket, known: &str) {
    let mut query = [0; 512];
    while let Ok((length, client)) = resolver.recv_from(&mut query) {
        let question = 12..length;
        let mut labels = Vec::new();
        let mut at = question.start;
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..end]).into_owned());
            at = end;
        }
        let asked = labels.join(".");
        let (address, end) = (query[at + 1..at + 3] == [0, 1], at + 5);
        let found = asked == known;
        let answers = u8::from(found && address);
        let mut reply = query[..2].to_vec();
        // An answer, authoritative; "no such name" unless it is known.
        reply.extend([0x84, if found { 0 } else { 3 }, 0, 1, 0, answers, 0, 0, 0, 0]);
        reply.extend(&query[question.start..end]);
        if answers == 1 {
            // The name of the question, A, IN, a minute, four bytes.
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        resolver.send_to(&reply, client).unwrap();
    }
}
