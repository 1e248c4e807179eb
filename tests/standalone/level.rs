//! How much a running program tells: its settings file is followed, and whoever may change it by the admin port can.

use std::fs;
use std::path::Path;

use crate::server::{Server, eventually};

type Start = fn(&Path, &[&str]) -> Server;

const KINDS: [(&str, Start); 2] = [("a gateway", Server::start), ("a sidecar", Server::beside_nothing)];

#[test]
fn the_settings_file_is_followed() {
    for (kind, start) in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let (objects, file) = (dir.path().join("objects"), dir.path().join("settings.yaml"));
        fs::create_dir(&objects).unwrap();
        fs::write(&file, "log: {level: warn}\n").unwrap();
        let mut server = start(&objects, &["--config", file.to_str().unwrap()]);
        assert_eq!(server.admin("/log"), (200, "warn\n".to_owned()), "{kind}");

        // As the kubelet and editors do.
        fs::write(dir.path().join("new"), "log: {level: \"info,floodway::proxy=debug\"}\n").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        eventually(kind, || server.admin("/log").1 == "floodway::proxy=debug,info\n");
        eventually("a line", || server.said().contains("log level changed, as "));

        fs::write(&file, "log: {level: loud}\n").unwrap();
        eventually("a complaint", || server.said().contains("the log's level stays"));
        assert_eq!(server.admin("/log").1, "floodway::proxy=debug,info\n", "{kind}");
        assert!(server.is_running());
    }
}

#[test]
fn the_admin_port_changes_it_only_where_it_may_be_written_to() {
    for (kind, start) in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let (objects, file) = (dir.path().join("objects"), dir.path().join("settings.yaml"));
        fs::create_dir(&objects).unwrap();
        for (writable, status, level) in [(false, 403, "info\n"), (true, 200, "debug\n")] {
            fs::write(&file, format!("listeners: {{adminWritable: {writable}}}\n")).unwrap();
            let server = start(&objects, &["--config", file.to_str().unwrap()]);
            assert_eq!(server.ask_admin("PUT", "/log?level=debug").0, status, "{kind}");
            assert_eq!(server.admin("/log").1, level, "{kind}");
        }
    }
}
