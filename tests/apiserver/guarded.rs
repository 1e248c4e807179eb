//! A child process that never outlives the tests: a small shell watches the pipe that this process holds and ends the
//! child, by its id, when the pipe closes, whether by `drop`, by a panic or because the tests were killed.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// First argument: a folder to remove at the end, or empty. The rest: the command.
const WATCHDOG: &str = r#"
dir=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
echo "$child"
exec >/dev/null
read -r _ <&3
kill -TERM "$child" 2>/dev/null
tries=0
while kill -0 "$child" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "$child" 2>/dev/null
wait "$child" 2>/dev/null
[ -z "$dir" ] || rm -rf "$dir"
"#;

pub(crate) struct Guarded {
    watchdog: Child,
    pipe: Option<ChildStdin>,
    pid: u32,
    log: PathBuf,
}

impl Guarded {
    /// Runs `command` with its output in the file `log`; `dir` is removed when it has ended.
    pub(crate) fn spawn(command: &Command, log: &Path, dir: Option<&Path>) -> Guarded {
        let file = File::create(log).unwrap();
        let mut watchdog = Command::new("sh");
        watchdog.arg("-c").arg(WATCHDOG).arg("watchdog");
        watchdog.arg(dir.unwrap_or(Path::new(""))).arg("sh").arg("-c").arg("exec \"$@\" >\"$0\" 2>&1").arg(log);
        watchdog.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => watchdog.env(key, value),
                None => watchdog.env_remove(key),
            };
        }
        watchdog.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut watchdog = watchdog.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap();
        Guarded { pipe: watchdog.stdin.take(), watchdog, pid, log: log.to_owned() }
    }

    pub(crate) fn alive(&self) -> bool {
        // proc_pid_stat(5): the state follows the name, which is in parentheses.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let _ = Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status();
    }

    /// Ends it with SIGTERM, or after ten seconds with SIGKILL, and waits.
    pub(crate) fn stop(&mut self) {
        drop(self.pipe.take());
        let _ = self.watchdog.wait();
    }

    /// Waits until it has ended by itself; false if it has not.
    pub(crate) async fn ended(&self, patience: Duration) -> bool {
        let ended = async {
            while self.alive() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(patience, ended).await.is_ok()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop();
    }
}
