//! The program: started from a copy of the examples with free ports, told to end as a terminal would.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::{Outcome, expect, web};

/// A running demo. Killed when dropped.
pub(crate) struct Demo {
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    folder: tempfile::TempDir,
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Demo {
    /// Starts it. Its backends have an address of their own: nobody takes a port there while one of them is dead.
    pub(crate) fn start() -> Demo {
        let mut demo = Demo::launch();
        let serving = web::wait("the demo to serve", Duration::from_secs(30), || {
            let ended = demo.child.try_wait().unwrap().is_some();
            (ended || demo.said().contains("Ctrl-C")).then_some(())
        });
        let said = demo.said();
        assert!(said.contains("Ctrl-C"), "{serving:?}: {said}");
        demo.http = address(&said, "Page");
        demo.admin = address(&said, "Admin");
        demo
    }

    fn launch() -> Demo {
        let folder = tempfile::tempdir().unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo");
        for name in fs::read_dir(&examples).unwrap().map(|entry| entry.unwrap().file_name()) {
            let text = fs::read_to_string(examples.join(&name)).unwrap();
            fs::write(folder.path().join(&name), text.replace("127.0.0.1", &own_address().to_string())).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_floodway"))
            .args(["demo", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().unwrap(), &said);
        listen(child.stderr.take().unwrap(), &said);
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        Demo { http: unknown, admin: unknown, folder, child, said }
    }

    /// Everything it wrote, on both outputs.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// What `floodway upstreams` shows of an endpoint: `available`, `out`, or what is wrong.
    pub(crate) fn state_of(&self, endpoint: &str) -> String {
        let admin = self.admin.to_string();
        let shown =
            Command::new(env!("CARGO_BIN_EXE_floodway")).args(["upstreams", "--admin", &admin]).output().unwrap();
        let table = String::from_utf8_lossy(&shown.stdout).into_owned();
        let row = table.lines().find_map(|line| line.trim_start().strip_prefix(endpoint)?.split_whitespace().next());
        row.map_or_else(|| format!("{table}{}", String::from_utf8_lossy(&shown.stderr)), str::to_owned)
    }

    /// Where its YAML is.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The lines to paste, without their comments.
    pub(crate) fn curl_lines(&self) -> Vec<String> {
        let said = self.said();
        let command = |line: &str| line.split("  # ").next().unwrap_or_default().trim().to_owned();
        said.lines().filter(|line| line.contains("curl ")).map(command).collect()
    }

    pub(crate) fn tells_where(&self) -> Outcome {
        let folder = self.folder().display().to_string();
        expect(self.said().contains(&folder), || format!("{folder} is not in {}", self.said()))?;
        Ok(format!("http://{}/", self.http))
    }

    /// What Ctrl-C does.
    pub(crate) fn interrupt(&mut self) -> Outcome {
        let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", self.child.id())]).status().unwrap();
        expect(kill.success(), || "could not send SIGINT".to_owned())?;
        let mut ended = None;
        let took = web::wait("the end of the demo", Duration::from_secs(20), || {
            ended = self.child.try_wait().unwrap();
            ended.map(|_| ())
        })?;
        let code = ended.and_then(|status| status.code());
        expect(code == Some(0), || format!("it ended with {code:?}: {}", self.said()))?;
        Ok(format!("after {} ms", took.as_millis()))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this machine that no other process uses: the number of this one is in it. Where 127.0.0.1 is the only one,
/// that.
fn own_address() -> Ipv4Addr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    if cfg!(target_os = "linux") { Ipv4Addr::new(127, 64 | a, b, c) } else { Ipv4Addr::LOCALHOST }
}

fn listen(output: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = Arc::clone(said);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut said = said.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

/// The address in the line that begins with `name`.
fn address(said: &str, name: &str) -> SocketAddr {
    let line = said.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    let rest = line.split("http://").nth(1).unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}
