//! What users are told where iptables has to do it: by programs that only look like it, so that nothing is changed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// A folder with such programs.
fn folder(programs: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in programs {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    folder
}

/// Exit code and words of `floodway capture --legacy-iptables` that finds these programs and no others.
fn captured(folder: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodway"));
    command.args(["capture", "--legacy-iptables", "--inbound-port=8080", "--exclude-outbound-port=5432"]);
    let Output { status, stderr, .. } = command.env("PATH", folder).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// Both families, by one script each.
fn both(check: &'static str, restore: &'static str) -> tempfile::TempDir {
    let names = ["iptables-legacy", "ip6tables-legacy"];
    let restores = ["iptables-legacy-restore", "ip6tables-legacy-restore"];
    let all: Vec<_> = names.map(|name| (name, check)).into_iter().chain(restores.map(|name| (name, restore))).collect();
    folder(&all)
}

#[test]
fn without_its_programs_the_image_that_has_them_is_named() {
    for programs in [&[][..], &[("iptables-legacy", "")], &[("iptables-restore", "")]] {
        let folder = folder(programs);
        let (code, told) = captured(folder.path());
        assert_eq!(code, Some(1));
        for words in ["there is no iptables-legacy and no iptables", "injector.capture.image", "mode local"] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}

#[test]
fn what_the_program_says_is_passed_on_with_the_remedy() {
    let refusing =
        both("exit 1", "echo \"can't initialize table 'nat': Permission denied (you must be root)\" >&2; exit 4");
    let (code, told) = captured(refusing.path());
    assert_eq!(code, Some(1));
    for words in ["iptables-legacy-restore failed: can't initialize", "NET_ADMIN and NET_RAW, and to run as root"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // However much that is, and whatever is in it.
    let long = both("exit 1", "printf 'a\\033[31m\\n%02000d' 7 >&2; exit 2");
    let (code, told) = captured(long.path());
    assert_eq!(code, Some(1));
    assert!(told.len() < 1000 && !told.contains('\x1b') && !told.contains("NET_RAW"), "{told:?}");
    let ended = both("exit 1", "exit 3");
    assert_eq!(captured(ended.path()).0, Some(1));
}

#[test]
fn programs_without_the_word_legacy_will_do() {
    let script = "while read -r line; do :; done";
    let plain = folder(&[
        ("iptables", "exit 0"),
        ("ip6tables", "exit 0"),
        ("iptables-restore", script),
        ("ip6tables-restore", script),
    ]);
    assert_eq!(captured(plain.path()), (Some(0), "connections are redirected by legacy iptables\n".to_owned()));
}
