//! Another network namespace at the other end of the veth pair of `network`: where connections to a pod come from.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// What a program says that ends well.
pub(crate) fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The namespace, until dropped: 10.77.0.100 and fd77::100.
pub(crate) struct Elsewhere(Child);

impl Elsewhere {
    pub(crate) fn new() -> Elsewhere {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo here; exec sleep 300"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut elsewhere = Elsewhere(command.spawn().unwrap());
        let pid = elsewhere.0.id().to_string();
        let mut line = String::new();
        BufReader::new(elsewhere.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        said("ip", &["link", "set", "floodway1", "netns", &pid]);
        elsewhere.said("ip addr add 10.77.0.100/24 dev floodway1 && ip link set floodway1 up");
        if std::path::Path::new("/proc/net/if_inet6").exists() {
            elsewhere.said("ip -6 addr add fd77::100/64 dev floodway1 nodad");
        }
        elsewhere
    }

    fn said(&self, script: &str) -> String {
        said("nsenter", &["--target", &self.0.id().to_string(), "--net", "bash", "-c", script])
    }

    /// What comes back, to the end, to whoever says this from there.
    pub(crate) fn asks(&self, address: &str, port: u16, words: &str) -> String {
        self.said(&format!("exec 3<>/dev/tcp/{address}/{port} && printf '{words}' >&3 && cat <&3"))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
