//! The programs that people ask with: curl, and openssl's own client.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::support::*;
use super::tls_clients::*;
use super::tls_passed::{HOST, passed_to, pod};

const REQUEST: &str = "GET /asked HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// Whether a program is installed. Where it is not, this fails if `CI` is set and says so otherwise.
fn installed(program: &str) -> bool {
    let found = Command::new(program).arg(if program == "openssl" { "version" } else { "--version" }).output();
    if found.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let text = format!("{program} is missing; install the package {program}");
    assert!(std::env::var_os("CI").is_none(), "{text}");
    eprintln!("NOT RUN: {text}");
    false
}

/// Runs a program that is told `input`, and its exit code with all that it says. Its input stays open until it ends.
async fn run(mut command: Command, input: &'static str) -> (Option<i32>, String) {
    let running = tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    });
    within(running).await.unwrap()
}

/// A plane before a mirror, and a file with whom its clients trust.
async fn plane(authority: &Authority) -> (Plane, tempfile::NamedTempFile) {
    let table = ended(to(mirror().await), "a.test", &[&authority.certificate(&["a.test"])]);
    (secure(table), trust(authority))
}

fn trust(authority: &Authority) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    file
}

fn curl(plane: &Plane, trust: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("curl");
    let port = plane.secure.port();
    command.args(["-sS", "-i", "--max-time", "20", "--resolve", &format!("a.test:{port}:127.0.0.1"), "--cacert"]);
    command.arg(trust).args(args).arg(format!("https://a.test:{port}/asked")).env_remove("CURL_CA_BUNDLE");
    for proxy in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command
}

#[tokio::test]
async fn curl_asks_in_every_version() {
    if !installed("curl") {
        return;
    }
    let authority = Authority::new();
    let (plane, file) = plane(&authority).await;
    for (args, begins) in [
        (&["--http1.1", "--tls-max", "1.2"][..], "HTTP/1.1 200 "),
        (&["--http1.1", "--tlsv1.3"], "HTTP/1.1 200 "),
        (&["--http2", "--tls-max", "1.2"], "HTTP/2 200"),
        (&["--http2", "--tlsv1.3"], "HTTP/2 200"),
    ] {
        let (code, said) = run(curl(&plane, file.path(), args), "").await;
        assert!(code == Some(0) && said.starts_with(begins), "{args:?}: {code:?} {said}");
        assert!(said.contains("GET /asked HTTP/1.1") && said.contains("x-forwarded-proto: https"), "{said}");
    }
    // 60 is a certificate that is not trusted, 35 a handshake that came to nothing.
    let stranger = trust(&Authority::new());
    let (code, said) = run(curl(&plane, stranger.path(), &[]), "").await;
    assert_eq!(code, Some(60), "{said}");
    for args in [&["--tls-max", "1.1"][..], &["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]] {
        let (code, said) = run(curl(&plane, file.path(), args), "").await;
        assert_eq!(code, Some(35), "{said}");
    }
    for (certificate, host) in
        [(authority.expired(&["a.test"]), "expired"), (authority.certificate(&["b.test"]), "for another")]
    {
        assert!(plane.publisher.publish(ended(to(mirror().await), "a.test", &[&certificate])));
        let (code, said) = run(curl(&plane, file.path(), &[]), "").await;
        assert_eq!(code, Some(60), "{host}: {said}");
    }
}

fn s_client(plane: &Plane, host: &str, trust: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &plane.secure.to_string(), "-servername", host, "-verify_return_error"]);
    command.args(["-verify_hostname", host, "-CAfile"]).arg(trust).args(args);
    command
}

#[tokio::test]
async fn openssl_asks_and_resumes_across_workers() {
    if !installed("openssl") {
        return;
    }
    let authority = Authority::new();
    let table = ended(to(mirror().await), "a.test", &[&authority.certificate(&["a.test"])]);
    let plane = Plane::with_workers(4, table, |settings| {
        settings.listeners.https = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0))];
    });
    let (file, session) = (trust(&authority), tempfile::NamedTempFile::new().unwrap());
    let session = session.path().to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        for number in 0..8 {
            let mut args = vec![version, "-alpn", "http/1.1", "-ign_eof", "-sess_out", session];
            if number > 0 {
                args.extend(["-sess_in", session]);
            }
            let (_, said) = run(s_client(&plane, "a.test", file.path(), &args), REQUEST).await;
            assert!(said.contains("HTTP/1.1 200 OK") && said.contains("x-forwarded-proto: https"), "{said}");
            assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
            let kind = if number > 0 { "Reused, TLSv1" } else { "New, TLSv1" };
            assert!(said.contains(kind), "{version}, {number}: {said}");
            if number == 0 {
                assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
            }
        }
    }
    plane.metric_becomes("floodway_tls_handshakes_total", "kind=\"resumed\"", 14.0).await;
}

/// Whoever asks to shake hands once more (RFC 5246 7.4.1.1) is told that there is none of that, whatever RFC 5746 makes of it.
#[tokio::test]
async fn openssl_cannot_renegotiate() {
    if !installed("openssl") {
        return;
    }
    let authority = Authority::new();
    let (plane, file) = plane(&authority).await;
    let (_, said) = run(s_client(&plane, "a.test", file.path(), &["-tls1_2"]), "R\n").await;
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
}

#[tokio::test]
async fn openssl_gets_nothing_old_or_weak() {
    if !installed("openssl") {
        return;
    }
    let authority = Authority::new();
    let (plane, file) = plane(&authority).await;
    for args in [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        // In CBC, without forward secrecy, without any encryption.
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256:AES256-GCM-SHA384"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0"],
    ] {
        let (code, said) = run(s_client(&plane, "a.test", file.path(), args), "").await;
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(said.contains("Cipher is (NONE)"), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn openssl_meets_the_endpoint_where_tls_is_passed_on() {
    if !installed("openssl") {
        return;
    }
    let (ours, theirs) = (Authority::new(), Authority::new());
    let table = passed_to(&[pod(&theirs).await], |_| {});
    let plane = secure(ended(table, "*", &[&ours.certificate(&[HOST])]));
    let file = trust(&theirs);
    for version in ["-tls1_2", "-tls1_3"] {
        let args = [version, "-ign_eof"];
        let (code, said) = run(s_client(&plane, HOST, file.path(), &args), "good\nbye\n").await;
        assert!(code == Some(0) && said.contains("Verify return code: 0 (ok)") && said.contains("\nbye\n"), "{said}");
    }
    assert_eq!(plane.metric("floodway_tls_handshakes_total", ""), 0.0);
}
