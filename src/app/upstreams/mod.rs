//! `floodway upstreams`: asks a running Floodway what it knows of its endpoints, and shows it.

mod table;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Failure, control};
use crate::admin::upstreams::Upstreams;
use crate::args::UpstreamsArgs;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits with `--watch` until it asks again, for somebody who looks at it and for a file.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// More than a hundred thousand endpoints take.
const MAX_ANSWER: usize = 64 << 20;

/// Shows what is known, once or again and again.
pub(super) fn run(args: &UpstreamsArgs) -> Result<(), Failure> {
    control::runtime()?.block_on(async {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let screen = args.watch && !args.json && std::io::stdout().is_terminal();
        let mut shown = false;
        loop {
            let text = match look(args, colours).await {
                Ok(text) => text,
                // Whoever watches a restart wants to see its end.
                Err(error) if shown => format!("{error:#}\n"),
                Err(error) => return Err(error.into()),
            };
            let written = match (screen, shown && !args.json) {
                // Over what was there, so that it does not flicker: line by line, and away with the rest.
                (true, false) => format!("\x1b[H\x1b[2J{text}"),
                (true, true) => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
                (false, true) => format!("\n{text}"),
                (false, false) => text,
            };
            shown = true;
            match std::io::stdout().write_all(written.as_bytes()).and_then(|()| std::io::stdout().flush()) {
                // `floodway upstreams | head` is no failure.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.context("cannot write to the standard output")?,
            }
            if !args.watch {
                return Ok(());
            }
            sleep(if screen { AGAIN.0 } else { AGAIN.1 }).await;
        }
    })
}

async fn look(args: &UpstreamsArgs, colours: bool) -> anyhow::Result<String> {
    let admin = &args.admin;
    let asked = timeout(PATIENCE, endpoints(admin)).await;
    let answer = asked.map_err(|_| anyhow!("no answer within {PATIENCE:?}")).flatten().map_err(|error| {
        let remedy = "name the admin port of a running Floodway with --admin HOST:PORT";
        anyhow!("cannot ask {admin} for its upstreams: {error:#}; {remedy}")
    })?;
    if args.json {
        return Ok(answer);
    }
    let upstreams = serde_json::from_str::<Upstreams>(&answer).map_err(|error| {
        let remedy = "use the version of floodway that runs there, or --json";
        anyhow!("what {admin} says of its upstreams is not understood: {error}; {remedy}")
    })?;
    Ok(table::table(&upstreams, colours))
}

async fn endpoints(admin: &str) -> anyhow::Result<String> {
    let (status, answer) = ask(admin, "/upstreams").await?;
    if status != StatusCode::OK {
        bail!("it answers {status} to /upstreams, as no admin port of this version does");
    }
    Ok(answer)
}

/// The answer of an admin port.
pub(super) async fn ask(admin: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(header::HOST, admin).body(Empty::<Bytes>::new())?;
    let asked = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        anyhow::Ok((status, body.map_err(|error| anyhow!(error))?.to_bytes()))
    };
    tokio::pin!(asked);
    let (status, body) = tokio::select! {
        answer = &mut asked => answer?,
        ended = connection => {
            ended?;
            asked.await?
        }
    };
    Ok((status, String::from_utf8(body.into())?))
}
