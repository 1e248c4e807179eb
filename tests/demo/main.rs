//! `floodway demo` as a user meets it: the program itself, on loopback, without a terminal. `make demo-check` shows the
//! lines; every line that the demo prints for pasting is run.
#![allow(clippy::unwrap_used)]

mod client;
mod curl;
mod program;
mod web;

use std::fs;
use std::path::Path;
use std::time::Duration;

use client::Client;
use program::Demo;
use ring::digest::{SHA256, digest};
use web::{Events, Web};

/// Longer than anything takes; what takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(30);

type Outcome = Result<String, String>;

/// Enough to pass through many buffers, little enough for a build without optimisation.
const LARGE: usize = 64 << 20;

#[test]
fn the_demo_does_what_it_prints() {
    let mut report = Report::default();
    let mut demo = Demo::start();
    let web = Web::to(demo.http);

    report.on("prints the page, the admin port and the folder", demo.tells_where());
    report.on("the page comes through the proxy", page(&web));
    let mut events = Events::open(demo.http, None);
    report.on("events arrive one by one, a second apart", events.one_by_one(3));
    report.on("a client that comes back gets the events it missed", missed(&demo, &events));
    report.on("a WebSocket echoes text and binary, and closes", web.websocket());
    report.on("a large download arrives whole", download(&web));
    report.on("a part of a file is what was asked for", part(&web));
    report.on("HEAD tells the length without a body", head(&web));
    report.on("a large upload arrives whole", upload(&web));
    report.on("a backend sees X-Forwarded-*, X-Request-Id and the edits of the rule", echo(&web));
    report.on("two endpoints take turns", turns(&web));
    report.on("the page can ask what the proxy knows of the two", ward(&demo, &web));
    report.on(
        "a backend that is killed is shown as out within a second, and no client notices",
        sick(&demo, &web, "dead"),
    );
    report
        .on("a backend that is slow is shown as out within a second, and no client notices", sick(&demo, &web, "slow"));
    report.on("a redirect keeps the rest of the path", redirect(&web));
    report.on("only who shows a token of the demo is let in, and its time is bounded", signed_in(&web));
    report.on("an event stream ends with its token", events_end(&demo, &web));
    report.on("the sixth request of a minute is refused, and told when to come again", limited(&web));
    report.on("passwords, keys and addresses decide who passes", others(&web));
    report.on("a request without a rule gets 404", miss(&web));
    report.on("the admin port answers", admin(&demo));
    report.on("an edit takes effect, and the open stream goes on", edit(&demo, &web, &mut events));
    report.on("a broken edit changes nothing", broken_edit(&demo, &web));
    curl::lines(&demo, &mut report);
    report.on("Ctrl-C drains and ends with 0", demo.interrupt());
    report.on("the open stream ended between two events, told when to come back", events.ended());

    println!("{} OK, {} FAILED", report.passed, report.failed.len());
    assert!(report.failed.is_empty(), "failed: {:#?}\n{}", report.failed, demo.said());
}

/// What was checked.
#[derive(Default)]
struct Report {
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    fn on(&mut self, what: &str, outcome: Outcome) {
        match outcome {
            Ok(detail) => {
                self.passed += 1;
                println!("OK      {what}{}{detail}", if detail.is_empty() { "" } else { ": " });
            }
            Err(why) => {
                println!("FAILED  {what}: {why}");
                self.failed.push(format!("{what}: {why}"));
            }
        }
    }
}

fn expect(what: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if what { Ok(()) } else { Err(otherwise()) }
}

fn page(web: &Web) -> Outcome {
    let page = web.get("/")?;
    expect(page.status == 200 && page.text().contains("<title>Floodway demo</title>"), || page.told())?;
    let routes = web.get("/demo/routes.json")?.json()?;
    expect(routes["rules"].as_array().is_some_and(|rules| rules.len() == 21), || format!("routes: {routes}"))?;
    Ok(format!("{} bytes", page.body.len()))
}

fn missed(demo: &Demo, events: &Events) -> Outcome {
    let last = events.last_id() - 3;
    let mut again = Events::open(demo.http, Some(last));
    let got = (0..3).map(|_| again.next_id()).collect::<Result<Vec<_>, _>>()?;
    expect(got == [last + 1, last + 2, last + 3], || format!("after {last} came {got:?}"))?;
    Ok(String::new())
}

fn download(web: &Web) -> Outcome {
    let path = format!("/files/{}MiB", LARGE >> 20);
    let file = web.get(&path)?;
    expect(file.status == 200 && file.body.len() == LARGE, || file.told())?;
    let listed = web.get(&format!("{path}.sha256"))?.text();
    let found = hex(&file.body);
    expect(listed.starts_with(&found), || format!("SHA-256 is {found}, not {listed}"))?;
    Ok(format!("{LARGE} bytes, SHA-256 {}…", &found[..12]))
}

fn part(web: &Web) -> Outcome {
    let whole = web.get("/files/100KiB")?;
    let part = web.ask("GET", "/files/100KiB", &[("range", "bytes=70000-70999")], Vec::new())?;
    expect(part.status == 206 && part.body[..] == whole.body[70_000..71_000], || part.told())?;
    let beyond = web.ask("GET", "/files/100KiB", &[("range", "bytes=200000-")], Vec::new())?;
    expect(beyond.status == 416, || beyond.told())?;
    Ok(String::new())
}

fn head(web: &Web) -> Outcome {
    let head = web.ask("HEAD", "/files/1GiB", &[], Vec::new())?;
    expect(head.status == 200 && head.field("content-length") == "1073741824" && head.body.is_empty(), || head.told())?;
    Ok(String::new())
}

fn upload(web: &Web) -> Outcome {
    let body = (0..LARGE).map(|at| (at % 251) as u8).collect::<Vec<_>>();
    let sum = hex(&body);
    let told = web.ask("POST", "/upload", &[], body)?.json()?;
    expect(told["bytes"] == LARGE && told["sha256"] == sum, || format!("{told}, not {LARGE} bytes with {sum}"))?;
    Ok(format!("{LARGE} bytes, SHA-256 {}…", &sum[..12]))
}

fn echo(web: &Web) -> Outcome {
    let headers = [("x-internal", "secret"), ("x-forwarded-for", "9.9.9.9"), ("connection", "x-hop"), ("x-hop", "1")];
    let answer = web.ask("PUT", "/echo/a/b?q=1", &headers, b"12345".to_vec())?;
    let seen = answer.json()?;
    let field = |name: &str| seen["headers"][name].as_str().unwrap_or_default().to_owned();
    expect(answer.field("x-served-through") == "floodway", || answer.told())?;
    for (found, expected) in [
        (&seen["method"], "PUT"),
        (&seen["path"], "/echo/a/b"),
        (&seen["query"], "q=1"),
        (&seen["headers"]["x-forwarded-for"], "127.0.0.1"),
        (&seen["headers"]["x-forwarded-proto"], "http"),
        (&seen["headers"]["x-demo-rule"], "echo-content"),
    ] {
        expect(found == expected, || format!("{expected:?} is missing: {seen}"))?;
    }
    expect(seen["bodyBytes"] == 5, || format!("the body got lost: {seen}"))?;
    expect(field("x-forwarded-host") == web.authority(), || {
        format!("X-Forwarded-Host is {}", field("x-forwarded-host"))
    })?;
    expect(!field("x-request-id").is_empty(), || format!("no X-Request-Id: {seen}"))?;
    for name in ["x-internal", "x-hop"] {
        expect(field(name).is_empty(), || format!("{name} came through: {seen}"))?;
    }
    Ok(String::new())
}

fn turns(web: &Web) -> Outcome {
    let mut found = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let answer = web.get("/echo")?.json()?;
        found.insert(answer["servedBy"].as_str().unwrap_or_default().to_owned());
        if found.len() == 2 {
            return Ok(found.into_iter().collect::<Vec<_>>().join(" and "));
        }
    }
    Err(format!("200 requests all went to {found:?}"))
}

/// Makes the second endpoint of /echo sick until `floodway upstreams` shows it out, and then well until it is back, while a
/// client asks on and on. That takes less than a second; more attempts are for machines that are busy with something else.
fn sick(demo: &Demo, web: &Web, condition: &str) -> Outcome {
    let client = Client::start(demo.http);
    let mut all = Vec::new();
    for _ in 0..5 {
        let told = web.ask("POST", &format!("/demo/echo/2/{condition}"), &[], Vec::new())?.json()?;
        let address = told[1]["address"].as_str().ok_or("no address")?.to_owned();
        let took = web::wait("that it is out", PATIENCE, || (demo.state_of(&address) == "out").then_some(()))?;
        web.ask("POST", "/demo/echo/2/well", &[], Vec::new())?;
        web::wait("that it is back", PATIENCE, || (demo.state_of(&address) == "available").then_some(()))?;
        all.push(took.as_millis());
        if took < Duration::from_secs(1) {
            return Ok(format!("after {all:?} ms; {}", client.end()?));
        }
    }
    Err(format!("never within a second, but after {all:?} ms; {}", client.end()?))
}

/// The page asks for this.
fn ward(demo: &Demo, web: &Web) -> Outcome {
    web::wait("what the proxy knows of a backend", PATIENCE, || {
        let backends = web.get("/demo/echo").ok()?.json().ok()?;
        (0..2).all(|at| backends[at]["known"]["health"] == "healthy").then_some(())
    })?;
    let told = web.get("/demo/echo")?.json()?;
    let address = told[0]["address"].as_str().unwrap_or_default();
    expect(demo.state_of(address) == "available" && told[0]["condition"] == "well", || told.to_string())?;
    Ok(String::new())
}

fn redirect(web: &Web) -> Outcome {
    let moved = web.get("/old/things?q=1")?;
    expect(moved.status == 308 && moved.field("location").ends_with("/echo/things?q=1"), || moved.told())?;
    Ok(moved.field("location"))
}

fn signed_in(web: &Web) -> Outcome {
    let refused = |answer: web::Answer, reason: &str| {
        expect(answer.status == 401 && answer.field("x-floodway-reason") == reason, || answer.told())
    };
    refused(web.get("/signed-in")?, "token_missing")?;
    let token = web.get("/demo/token")?.text();
    let bearer = format!("Bearer {token}");
    let seen = web.ask("GET", "/signed-in", &[("authorization", &bearer), ("x-user", "root")], Vec::new())?;
    let told = seen.json()?;
    expect(told["headers"]["x-user"] == "ada", || format!("{told}"))?;
    expect(told["headers"]["authorization"].is_null(), || format!("the token goes no farther: {told}"))?;
    let altered = format!("Bearer {}", token.replacen('.', ".e", 1));
    refused(web.ask("GET", "/signed-in", &[("authorization", &altered)], Vec::new())?, "token_invalid")?;
    Ok(String::new())
}

fn events_end(demo: &Demo, web: &Web) -> Outcome {
    let token = web.get("/demo/token?seconds=2")?.text();
    let mut events = Events::of(demo.http, &format!("/members/clock?access_token={token}"));
    let first = events.next_id()?;
    let rest = events.rest()?;
    expect(rest.ends_with("\r\n0\r\n\r\n"), || format!("the end was {rest:?}"))?;
    Ok(format!("{} more events after {first}", rest.matches("id: ").count()))
}

fn limited(web: &Web) -> Outcome {
    for left in (0..5).rev() {
        let answer = web.get("/limited")?;
        let said = answer.field("ratelimit");
        expect(answer.status == 200 && said.contains(&format!(";r={left};")), || format!("{said}: {}", answer.told()))?;
    }
    let sixth = web.get("/limited")?;
    let wait = sixth.field("retry-after");
    expect(sixth.status == 429 && wait.parse::<u64>().is_ok_and(|wait| (1..=12).contains(&wait)), || sixth.told())?;
    Ok(format!("in {wait} s"))
}

fn others(web: &Web) -> Outcome {
    for (path, lines, status, reason) in [
        ("/staff", &[][..], 401, "basic_auth_missing"),
        ("/staff", &[("authorization", "Basic YWRhOm9wZW4gc2VzYW0=")], 401, "basic_auth_invalid"),
        ("/staff", &[("authorization", "Basic YWRhOm9wZW4gc2VzYW1l")], 200, ""),
        ("/partners", &[], 401, "api_key_missing"),
        ("/partners", &[("x-api-key", "a-key-for-the-demo-alone")], 200, ""),
        ("/office", &[], 403, "address_denied"),
    ] {
        let answer = web.ask("GET", path, lines, Vec::new())?;
        expect(answer.status == status && answer.field("x-floodway-reason") == reason, || {
            format!("{path} {lines:?}: {}", answer.told())
        })?;
    }
    Ok(String::new())
}

fn miss(web: &Web) -> Outcome {
    let miss = web.ask("GET", "/nowhere", &[("accept", "application/json")], Vec::new())?;
    expect(miss.status == 404 && miss.json()?.is_object(), || miss.told())?;
    Ok(String::new())
}

fn admin(demo: &Demo) -> Outcome {
    let admin = Web::to(demo.admin);
    let ready = admin.get("/readyz")?;
    expect(ready.status == 200, || ready.told())?;
    let metrics = admin.get("/metrics")?;
    expect(metrics.text().contains("floodway_"), || metrics.told())?;
    Ok(String::new())
}

fn edit(demo: &Demo, web: &Web, events: &mut Events) -> Outcome {
    let before = web.get("/hello")?.text();
    expect(before.contains("Edit me"), || format!("the answer was {before:?}"))?;
    replace(&demo.folder().join("routes.yaml"), "Edit me", "Edited");
    let took = web::wait("the edited answer", PATIENCE, || {
        web.get("/hello").ok().filter(|answer| answer.text().contains("Edited"))
    })?;
    let next = events.last_id() + 1;
    let got = [events.next_id()?, events.next_id()?];
    expect(got == [next, next + 1], || format!("the stream went on with {got:?} instead of {next}"))?;
    Ok(format!("after {} ms", took.as_millis()))
}

fn broken_edit(demo: &Demo, web: &Web) -> Outcome {
    let path = demo.folder().join("routes.yaml");
    let good = fs::read_to_string(&path).unwrap();
    save(&path, &format!("{good}\n  : broken: [\n"));
    // Until the program has seen it: it says so.
    web::wait("a word on the broken file", PATIENCE, || demo.said().contains("routes.yaml:").then_some(()))?;
    let still = web.get("/hello")?;
    expect(still.status == 200 && still.text().contains("Edited"), || still.told())?;
    save(&path, &good);
    Ok(String::new())
}

fn replace(path: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(old));
    save(path, &text.replace(old, new));
}

/// As editors do: nobody sees half a file.
fn save(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
