//! What a rule asks for streams.

use std::sync::Arc;
use std::time::Duration;

use super::action::time;
use super::conditions::Problem;
use crate::api;
use crate::snapshot::{Ping, PingTarget, Sse, Streaming, WebSocket, duration};

/// How long a pong may take when nobody says otherwise.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked for, or nothing, as by most rules.
pub(super) fn streaming(given: Option<&api::Streaming>, at: &str) -> Result<Option<Arc<Streaming>>, Problem> {
    let Some(api::Streaming { max_age, removal_grace, hold_first_byte, sse, web_socket }) = given else {
        return Ok(None);
    };
    let streaming = Streaming {
        max_age: time_within(max_age, api::MAX_AGE, || format!("{at}.maxAge"))?,
        removal_grace: time(removal_grace.as_deref(), || format!("{at}.removalGrace"))?,
        hold_first_byte: *hold_first_byte,
        sse: sse.as_ref().map(|given| self::sse(given, &format!("{at}.sse"))).transpose()?.unwrap_or_default(),
        web_socket: web_socket
            .as_ref()
            .map(|given| self::web_socket(given, &format!("{at}.webSocket")))
            .transpose()?
            .unwrap_or_default(),
    };
    Ok((streaming != Streaming::default()).then(|| Arc::new(streaming)))
}

fn sse(api::Sse { heartbeat, retry }: &api::Sse, at: &str) -> Result<Sse, Problem> {
    Ok(Sse {
        heartbeat: time_within(heartbeat, api::HEARTBEAT, || format!("{at}.heartbeat"))?,
        retry: time_within(retry, api::RETRY, || format!("{at}.retry"))?,
    })
}

fn web_socket(given: &api::WebSocket, at: &str) -> Result<WebSocket, Problem> {
    let api::WebSocket { ping_interval, pong_timeout, ping_target, max_frame_bytes, max_message_bytes } = given;
    let interval = time_within(ping_interval, api::PING, || format!("{at}.pingInterval"))?;
    let timeout = time_within(pong_timeout, api::PING, || format!("{at}.pongTimeout"))?;
    if interval.is_none() && (timeout.is_some() || ping_target.is_some()) {
        return Err(Problem::invalid(at, "pongTimeout and pingTarget need a pingInterval, for example 30s"));
    }
    if max_message_bytes.is_some_and(|message| max_frame_bytes.is_some_and(|frame| frame > message)) {
        return Err(Problem::invalid(at, "maxFrameBytes cannot be more than maxMessageBytes"));
    }
    let target = ping_target.map(|target| match target {
        api::PingTarget::Client => PingTarget::Client,
        api::PingTarget::Endpoint => PingTarget::Endpoint,
        api::PingTarget::Both => PingTarget::Both,
    });
    Ok(WebSocket {
        ping: interval.map(|interval| Ping {
            interval,
            timeout: timeout.unwrap_or(PONG_TIMEOUT),
            target: target.unwrap_or_default(),
        }),
        max_frame: payload(*max_frame_bytes, || format!("{at}.maxFrameBytes"))?,
        max_message: payload(*max_message_bytes, || format!("{at}.maxMessageBytes"))?,
    })
}

/// A bound for payloads. "All control frames MUST have a payload length of 125 bytes or less" (RFC 6455 5.5), and must
/// pass.
fn payload(most: Option<u32>, at: impl Fn() -> String) -> Result<Option<u64>, Problem> {
    match most {
        Some(small @ ..125) => Err(Problem::invalid(at(), format_args!("{small} is less than 125"))),
        most => Ok(most.map(u64::from)),
    }
}

/// A duration within bounds.
pub(super) fn time_within(
    text: &Option<String>,
    (least, most): api::TimeBounds,
    at: impl Fn() -> String,
) -> Result<Option<Duration>, Problem> {
    let given = time(text.as_deref(), &at)?;
    let outside = |time: Duration| {
        duration::parse(least).is_ok_and(|least| time < least) || duration::parse(most).is_ok_and(|most| time > most)
    };
    match given.filter(|time| outside(*time)) {
        Some(time) => {
            let time = duration::format(time);
            Err(Problem::invalid(at(), format_args!("{time} is not a time from {least} to {most}")))
        }
        None => Ok(given),
    }
}
