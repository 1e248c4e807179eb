//! Exit codes and messages: 2 for wrong usage or configuration, 1 for failure, 0 otherwise.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use socket2::{Domain, Socket, Type};

use crate::server::{Server, eventually, floodway};

fn run(args: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = floodway(args).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().unwrap(), said)
}

#[test]
fn wrong_usage_is_explained_with_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, "listeners:\n  htttp: []\n").unwrap();
    let (dir, file) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
    let settings = format!("{file}:2:3: listeners.htttp: unknown field `htttp`");
    for (args, told) in [
        (&["standalone", dir, "--htpp", "x"][..], "--http"),
        (&["standalone"], "<DIR>"),
        (&["standalone", "/nowhere/at/all"], "/nowhere/at/all: cannot be read as a folder of YAML files"),
        (&["standalone", file], "not a folder; name the folder that holds the YAML files"),
        (&["standalone", dir, "--config", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (&["standalone", dir, "--config", file], &settings),
        (&["standalone", dir, "--http", "8080"], "write an IP address and a port, for example 127.0.0.1:8080"),
        (&["standalone", dir, "--workers", "0"], "workers: 0 is too small; use at least 1"),
        (&["standalone", dir, "--log", "loud"], "\"loud\" is not a log level"),
        (&["standalone", dir, "--grace", "5"], "\"5\" is not a duration; write for example"),
        (&["upstreams", "--admin", "9901"], "write a host and a port, for example 127.0.0.1:9901"),
        (&["fly"], "unrecognized subcommand 'fly'"),
        (&["gateway", "--admin", "127.0.0.1:0"], "no way to reach a Kubernetes API server: set KUBECONFIG"),
        (&[], "Usage: floodway"),
    ] {
        let mut command = floodway(args);
        let output = command.env("HOME", "/nowhere").env_remove("KUBERNETES_SERVICE_HOST").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(told), "{args:?}: {said}");
    }
}

#[test]
fn what_is_asked_is_answered_with_exit_code_0() {
    for (args, told) in [
        (&["--version"][..], concat!("floodway ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], "standalone"),
        (&["standalone", "--help"], "--drain-delay"),
        (&["crd"], "kind: CustomResourceDefinition"),
    ] {
        let (code, said) = run(args);
        assert_eq!(code, 0, "{args:?}: {said}");
        assert!(said.contains(told), "{args:?}: {said}");
    }
}

#[test]
fn a_taken_port_is_named_with_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for flags in [["--http", &address, "--admin", "127.0.0.1:0"], ["--http", "127.0.0.1:0", "--admin", &address]] {
        let args: Vec<&str> = ["standalone", dir].iter().chain(&flags).copied().collect();
        let (code, said) = run(&args);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
        assert!(
            said.contains(&format!(
                "choose another address with {}",
                if flags[1] == address { "--http" } else { "--admin" }
            )),
            "{said}"
        );
    }
}

#[test]
fn the_first_signal_drains_and_ends_with_exit_code_0() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(dir.path(), &[]);
        assert_eq!(server.admin("/readyz"), (200, "ok\n".to_owned()));
        server.signal(signal);
        assert_eq!(server.ended().code(), Some(0), "{}", server.said());
    }
}

#[test]
fn while_the_drain_waits_it_serves_but_is_not_ready_and_a_second_signal_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--drain-delay", "1h"]);
    server.signal("-HUP");
    // Ctrl-C reaches a whole group of processes, and some of them pass it on.
    let twice = format!("kill -INT {pid}; kill -TERM {pid}", pid = server.pid());
    assert!(Command::new("sh").args(["-c", &twice]).status().unwrap().success());
    eventually("it is not ready", || server.admin("/readyz").0 == 503);
    for _ in 0..200 {
        assert_eq!(server.get("/").0, 404, "it still serves");
    }
    eventually("a second signal ends it", || {
        if server.is_running() {
            server.signal("-TERM");
        }
        !server.is_running()
    });
    assert_eq!(server.ended().code(), Some(0), "{}", server.said());
}

#[test]
fn upstreams_are_shown_by_the_admin_port_and_nothing_else() {
    // Bound, but not listening: they refuse, and nobody else can have the ports. Two, since the last one is never ejected.
    let silent = [(); 2].map(|()| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket
    });
    let refuse = silent.each_ref().map(|socket| socket.local_addr().unwrap().as_socket().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let objects = format!(
        "apiVersion: floodway.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: r}}\n\
         spec: {{rules: [{{backends: [{{upstream: {{name: u}}}}]}}]}}\n\
         ---\napiVersion: floodway.dev/v1alpha1\nkind: ProxyUpstream\nmetadata: {{name: u}}\n\
         spec: {{endpoints: [{{address: '{}'}}, {{address: '{}'}}]}}\n",
        refuse[0], refuse[1]
    );
    std::fs::write(dir.path().join("a.yaml"), objects).unwrap();
    let server = Server::start(dir.path(), &[]);
    eventually("an endpoint that refuses is shown as ejected", || {
        assert_eq!(server.get("/").0, 502);
        let (code, said) = run(&["upstreams", "--admin", &server.admin.to_string()]);
        assert!(code == 0 && said.starts_with("ENDPOINT "), "{said}");
        let row = said.lines().find(|line| line.contains("refused, ") && line.contains("s left"));
        row.is_some_and(|row| {
            refuse.iter().any(|address| row.starts_with(&format!("  {address} "))) && row.contains(" out ")
        })
    });
    let (code, said) = run(&["upstreams", "--json", "--admin", &server.admin.to_string()]);
    assert!(code == 0 && serde_json::from_str::<serde_json::Value>(&said).unwrap()["upstreams"].is_array(), "{said}");
    eventually("each change is logged", || {
        let said = server.said();
        said.contains("from=\"admitted\" to=\"ejected\" why=\"refused\" lasts=")
            && said.contains("from=\"ejected\" to=\"admitted\" why=\"time_over\"")
    });

    for address in [server.http, refuse[0]] {
        let (code, said) = run(&["upstreams", "--admin", &address.to_string()]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("cannot ask {address} for its upstreams: ")), "{said}");
        assert!(said.contains("; name the admin port of a running Floodway with --admin HOST:PORT"), "{said}");
    }
}
