//! The printed lines, run as they stand by a shell and curl. Each must be known here, so that none is printed unchecked.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use tokio::time::Instant;

use crate::program::Demo;
use crate::{Outcome, Report, expect};

pub(crate) fn lines(demo: &Demo, report: &mut Report) {
    let lines = demo.curl_lines();
    report.on("prints lines to paste", expect(lines.len() >= 8, || format!("{lines:?}")).map(|()| String::new()));
    if !found("curl") && std::env::var_os("FLOODWAY_DEMO_CHECK").is_none() {
        println!("        curl is not installed, so the printed lines are not run; `make demo-check` insists on it");
        return;
    }
    for line in lines {
        report.on(&line, run(&line));
    }
}

fn found(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn run(line: &str) -> Outcome {
    if line.contains("/clock?every=") {
        let times = arrivals(line, ":", 1)?;
        return expect(times.len() == 1, || "no comment".to_owned()).map(|()| "a comment meanwhile".to_owned());
    }
    if line.contains("/clock") {
        // Three events, each when its second begins.
        let times = arrivals(line, "id: ", 3)?;
        expect(times.len() == 3, || format!("{} events", times.len()))?;
        let gap = (times[2] - times[1]).as_millis();
        expect((300..3_000).contains(&gap), || format!("a gap of {gap} ms"))?;
        return Ok(format!("a gap of {gap} ms"));
    }
    // A gigabyte through a build without optimisation is a long wait for nothing more.
    let line = &line.replace("/1GiB", "/64MiB");
    let told = shell(line)?;
    let (holds, detail) = match line {
        _ if line.contains("http://secure.") => {
            (told.starts_with("HTTP/1.1 308") && told.contains("\r\nlocation: https://secure.demo.localhost"), "")
        }
        _ if line.contains("https://secure.") => {
            (told.contains(" 200") && told.contains("\r\nstrict-transport-security: max-age=3600\r\n"), "")
        }
        _ if line.contains("/acme.pem") => (told.contains("\"ssl-client-subject-dn\": \"CN=orders,O=Acme\""), ""),
        _ if line.contains("/umbrella.pem") => {
            (told.contains(" 403") && told.contains("client_certificate_denied"), "")
        }
        _ if line.contains("https://partners.") => (told.trim() == "refused", ""),
        _ if line.contains("/signed-in -H") => (told.contains("\"x-user\": \"ada\""), ""),
        _ if line.contains("/signed-in") => (told.starts_with("HTTP/1.1 401") && told.contains("token_missing"), ""),
        // The check has used up what this address had.
        _ if line.contains("/limited") => (told.trim_end().ends_with("429"), ""),
        _ if line.contains("/staff") => (told.contains("\"x-user\": \"ada\""), ""),
        _ if line.contains("/partners") => (told.contains("\"x-client\": \"acme\""), ""),
        _ if line.contains("/office") => {
            (told.starts_with("HTTP/1.1 403") && told.contains("Only from the office. (address_denied"), "")
        }
        _ if line.contains("/dressed") => (
            ["\r\ncontent-encoding: gzip\r\n", "\r\nx-frame-options: DENY\r\n", "\"path\": \"/dressed\""]
                .iter()
                .all(|part| told.contains(part)),
            "",
        ),
        _ if line.contains("/pages") => (
            told.contains("access-control-allow-origin: https://shop.example.com"),
            "with the field that browsers want",
        ),
        _ if line.contains("/mirrored") => (told.contains("\"path\": \"/mirrored\""), ""),
        _ if line.contains("/notes") => (told.starts_with("HTTP/1.1 415"), ""),
        _ if line.contains("/demo/echo/2/") => {
            let condition = line.rsplit('/').next().unwrap_or_default();
            (told.contains(&format!("\"condition\": \"{condition}\"")), "")
        }
        _ if line.contains("/echo/") => (told.contains("\"x-forwarded-for\": \"127.0.0.1\""), ""),
        _ if line.contains("/dev/null") => {
            let status = shell(&format!("{line} -sS -w '%{{http_code}} %{{size_download}}'"))?;
            (status == "200 67108864", "64 MiB for 1 GiB")
        }
        _ if line.contains(" -r ") => (told.trim() == "1000", ""),
        _ if line.contains("/upload") => (told.contains("\"bytes\": 100000000"), "100000000 bytes"),
        _ if line.contains("/hello") => (told.starts_with("HTTP/1.1 200") && told.contains("Hello"), ""),
        _ if line.contains("/old/") => (told.contains("\"path\": \"/echo/things\""), ""),
        _ if line.contains("/nowhere") => (told.starts_with("HTTP/1.1 404"), ""),
        _ if line.contains("/upstreams") => (told.contains("\"demo/echo:80\""), ""),
        _ if line.contains("/metrics") => (told.contains("# TYPE floodway_"), ""),
        _ => return Err("printed, but nothing here checks it".to_owned()),
    };
    expect(holds, || format!("said: {}", told.chars().take(400).collect::<String>()))?;
    Ok(detail.to_owned())
}

/// The same line, but not for ever.
fn bounded(line: &str) -> String {
    line.replacen("curl ", "curl --max-time 60 ", 1)
}

fn shell(line: &str) -> Result<String, String> {
    let output = Command::new("sh")
        .args(["-c", &bounded(line)])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run a shell: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// When the first `count` lines of a stream came that begin so.
fn arrivals(line: &str, beginning: &str, count: usize) -> Result<Vec<Instant>, String> {
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {}", bounded(line))])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run a shell: {error}"))?;
    let output = child.stdout.take().ok_or("no output")?;
    let times = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.starts_with(beginning))
        .map(|_| Instant::now())
        .take(count)
        .collect::<Vec<_>>();
    // This is curl: it took the shell's place.
    let _ = child.kill();
    let _ = child.wait();
    Ok(times)
}
