//! What the terminal says: addresses, and lines to paste. `tests/demo.rs` runs every line that begins with `curl`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Folder;

/// What is said once the proxy serves.
pub fn banner(folder: &Folder, http: SocketAddr, https: Option<SocketAddr>, admin: SocketAddr) -> String {
    let (http, admin) = (reachable(http), reachable(admin));
    let url = format!("http://{http}");
    let mut lines = vec![
        (format!("curl -N {url}/clock"), "an event each second, as it happens"),
        (format!("curl -N --http2-prior-knowledge {url}/clock"), "the same over HTTP/2"),
        (format!("curl -N '{url}/clock?every=20'"), "one in 20 seconds, kept alive by comments"),
        (format!("curl '{url}/echo/any/path?q=1'"), "the request as the backend gets it"),
        (format!("curl -o /dev/null {url}/files/1GiB"), "a large file, made while it is sent"),
        (format!("curl -s -r 1000-1999 {url}/files/1GiB | wc -c"), "1000 bytes out of its middle"),
        (format!("head -c 100000000 /dev/zero | curl -sT - {url}/upload"), "a large upload, counted and summed up"),
        (format!("curl -i {url}/hello"), "answered by a rule"),
        (format!("curl -sL {url}/old/things"), "redirected by a rule"),
        (format!("curl -i {url}/nowhere"), "no rule: 404"),
        (format!("curl -X POST {url}/demo/echo/2/dead"), "kill one of two backends of /echo: nobody notices"),
        (format!("curl -X POST {url}/demo/echo/2/slow"), "or make it slow"),
        (format!("curl -X POST {url}/demo/echo/2/well"), "and well again"),
        (format!("curl -i {url}/signed-in"), "who shows no token gets 401"),
        (
            format!("curl -s {url}/signed-in -H \"Authorization: Bearer $(curl -s {url}/demo/token)\""),
            "with one, good for a minute",
        ),
        (
            format!("curl -sN \"{url}/members/clock?access_token=$(curl -s '{url}/demo/token?seconds=3')\""),
            "events until the token expires",
        ),
        (format!("curl -s -w '%{{http_code}} ' '{url}/limited/[1-6]'"), "five a minute, and the sixth gets 429"),
        (format!("curl -s -u 'ada:open sesame' {url}/staff"), "only users with a password"),
        (format!("curl -s -H 'x-api-key: a-key-for-the-demo-alone' {url}/partners"), "only programs with a key"),
        (format!("curl -i {url}/office"), "only some addresses: 403, with a page of the demo's own"),
        (format!("curl -si --compressed {url}/dressed"), "fields that guard pages, and fewer bytes"),
        (format!("curl -s {url}/mirrored"), "every other one is copied for another service, whose answer nobody gets"),
        (format!("curl -i -H 'Origin: https://shop.example.com' {url}/pages"), "pages of another origin may read this"),
        (format!("curl -i -H 'Content-Type: image/png' -d 1 {url}/notes"), "only text: 415"),
    ];
    if let Some(https) = https {
        lines.extend(secure_lines(folder, http, reachable(https)));
    }
    lines.push((format!("curl -s {admin}/upstreams"), "what the proxy knows of each endpoint"));
    lines.push((format!("curl -s {admin}/metrics"), "what the proxy counts"));
    let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or_default();
    let mut text = format!(
        "\nFloodway serves the demo.\n\n  Page    {url}/  (streams, and backends to make sick, live)\n  Admin   http://{admin}/\n  \
         Folder  {}{}\n\nPaste into another terminal:\n\n",
        folder.path().display(),
        if folder.copied() { "  (a copy of the built-in examples)" } else { "" },
    );
    for (line, comment) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {line:width$}  # {comment}");
    }
    let _ = write!(
        text,
        "\nEdit {} and save: the change takes effect at once, and open streams go on.\nCtrl-C drains for two seconds at most, and ends it.\n",
        folder.path().join("routes.yaml").display()
    );
    text
}

/// Lines for hosts with certificates. Their names need not be known to anybody: curl is told where they are.
fn secure_lines(folder: &Folder, http: SocketAddr, https: SocketAddr) -> [(String, &'static str); 5] {
    let file = |name| quoted(folder, name);
    let to = |address: SocketAddr| format!("--connect-to ::{address}");
    let trusting = format!("--cacert {} {}", file("authority.pem"), to(https));
    let partners = "https://partners.demo.localhost/";
    [
        (format!("curl -i {} http://secure.demo.localhost/", to(http)), "who comes without TLS is sent there"),
        (format!("curl -i {trusting} https://secure.demo.localhost/"), "TLS, and browsers are told to stay with it"),
        (
            format!("curl -s {trusting} --cert {} {partners}", file("acme.pem")),
            "only clients with a certificate, and the backend sees whose",
        ),
        (
            format!("curl -i {trusting} --cert {} {partners}", file("umbrella.pem")),
            "one of the same authority, but not Acme's: 403",
        ),
        (format!("curl -s {trusting} {partners} || echo refused"), "without one there is no connection"),
    ]
}

/// A file of the folder, as a shell takes it from wherever it is.
fn quoted(folder: &Folder, name: &str) -> String {
    let path = folder.path().join(name);
    let path = std::path::absolute(&path).unwrap_or(path).display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if path.bytes().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// What is said when the proxy has drained.
pub fn farewell() -> &'static str {
    "\nDrained. Good-bye.\n"
}

/// An address to connect to, where the one that was bound may stand for all.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
