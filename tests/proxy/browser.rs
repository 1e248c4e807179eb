//! Event streams as a browser reads them: Chromium's EventSource, through ends, heartbeats and odd line ends. Says that it did
//! not run where there is no Chromium.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use floodway::snapshot::{Protocol, Sse, Streaming};
use serde_json::Value;
use tokio::sync::mpsc;

use super::farewell::streaming;
use super::support::*;

const EVENTS: u64 = 60;

/// Tells what it saw once it has seen enough.
const PAGE: &str = r#"<!doctype html><link rel="icon" href="data:,"><script>
const seen = [], odd = [];
let opened = 0;
const source = new EventSource("/events");
source.onopen = () => opened++;
source.onmessage = ({lastEventId, data}) => {
  seen.push(Number(lastEventId));
  if (data !== "number " + lastEventId) odd.push(data);
  if (seen.length == EVENTS) {
    source.close();
    fetch("/saw", {method: "POST", body: JSON.stringify({seen, odd, opened})});
  }
};
</script>"#;

fn chromium(address: std::net::SocketAddr, profile: &std::path::Path) -> Option<Child> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(|program| {
        let mut command = Command::new(program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg(format!("http://{address}/"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
    })
}

/// Events from where the client was, with pauses, in halves, with each kind of line end.
async fn events(mut client: Raw, head: String) {
    let last = head.lines().find_map(|line| line.strip_prefix("last-event-id: "));
    let first = last.map_or(0, |last| last.parse::<u64>().unwrap() + 1);
    client.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
    // Heartbeats come before the byte order mark.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let mut mark = "\u{feff}";
    for id in first.. {
        let end = ["\n", "\r", "\r\n"][(id % 3) as usize];
        let event = format!("{mark}id: {id}{end}: a comment{end}data: number {id}{end}{end}");
        mark = "";
        let half = 4 + (id as usize * 7) % (event.len() - 4);
        for part in [&event.as_bytes()[..half], &event.as_bytes()[half..]] {
            if tokio::io::AsyncWriteExt::write_all(&mut client.0, part).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(if id % 8 == 7 { 250 } else { 15 })).await;
        }
    }
}

#[tokio::test]
async fn an_event_source_that_comes_back_misses_nothing_and_gets_nothing_twice() {
    let (sender, mut saw) = mpsc::channel(1);
    let address = backend(move |mut client| {
        let sender = sender.clone();
        async move {
            while let Some(head) = client.request().await {
                if head.starts_with("GET /events ") {
                    return events(client, head).await;
                }
                let mut answer = String::new();
                if head.starts_with("POST /saw ") {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    let mut content = vec![0; length.parse().unwrap()];
                    tokio::io::AsyncReadExt::read_exact(&mut client.0, &mut content).await.unwrap();
                    sender.send(serde_json::from_slice::<Value>(&content).unwrap()).await.unwrap();
                } else {
                    answer = PAGE.replace("EVENTS", &EVENTS.to_string());
                }
                let length = answer.len();
                client
                    .send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{answer}"
                    ))
                    .await;
            }
        }
    })
    .await;
    let sse = Sse { heartbeat: Some(Duration::from_millis(100)), retry: Some(Duration::from_millis(50)) };
    let wishes = Streaming { max_age: Some(Duration::from_millis(900)), sse, ..Streaming::default() };
    let plane = Plane::start(streaming(address, Protocol::Http1, wishes));
    let profile = tempfile::tempdir().unwrap();
    let Some(mut browser) = chromium(plane.address, profile.path()) else {
        eprintln!("did not run: no Chromium");
        return;
    };
    let told = tokio::time::timeout(Duration::from_secs(150), saw.recv()).await;
    browser.kill().unwrap();
    browser.wait().unwrap();
    let told = told.expect("the page says nothing").unwrap();
    assert_eq!(told["seen"], Value::from((0..EVENTS).collect::<Vec<_>>()));
    assert_eq!(told["odd"], Value::Array(Vec::new()));
    let opened = told["opened"].as_u64().unwrap();
    assert!(opened > 2, "it ended now and then: {told}");
    let lines = plane.logged_times("/events", opened as usize).await;
    let ends = lines.iter().filter(|line| line["end"] == "max_age").count();
    assert!(ends as u64 >= opened - 1, "{lines:?}");
}
