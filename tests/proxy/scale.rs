//! How large the tests are that `make soak` runs for longer, with more of everything.

/// How much, and for how long. `FLOODWAY_SOAK` changes it: `seconds=600 scale=2`.
pub struct Scale {
    pub seconds: u64,
    pub scale: usize,
}

impl Scale {
    pub fn asked() -> Scale {
        let mut scale = Scale { seconds: 0, scale: 1 };
        for word in std::env::var("FLOODWAY_SOAK").unwrap_or_default().split_whitespace() {
            match word.split_once('=') {
                Some(("seconds", number)) => scale.seconds = number.parse().unwrap(),
                Some(("scale", number)) => scale.scale = number.parse().unwrap(),
                _ => panic!("FLOODWAY_SOAK takes seconds=N and scale=N, not {word:?}"),
            }
        }
        scale
    }
}

/// Lets this process open so many sockets. Each stream through a data plane of its own has four.
pub fn room_for(sockets: usize) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let open = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    if open.split_whitespace().nth(3).unwrap().parse::<usize>().is_ok_and(|soft| soft < sockets) {
        let (process, files) = (std::process::id().to_string(), format!("--nofile={sockets}:"));
        let raised = std::process::Command::new("prlimit").args(["--pid", &process, &files]).status().unwrap();
        assert!(raised.success(), "this needs {sockets} open files: ulimit -n {sockets}");
    }
}
