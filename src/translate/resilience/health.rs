//! How the endpoints of an upstream are asked whether they are well.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::api;
use crate::snapshot::{HealthCheck, HttpProbe, Probe, ProbeHeaders, ProbeMethod, Protocol, Statuses, duration};
use crate::translate::action::header_fields;
use crate::translate::conditions::Problem;
use crate::translate::streaming::time_within;

/// When nobody says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(1);
const HEALTHY_THRESHOLD: u32 = 2;
const UNHEALTHY_THRESHOLD: u32 = 3;

/// How they are asked.
pub(super) fn health(given: &api::ActiveCheck, at: &str) -> Result<HealthCheck, Problem> {
    let api::ActiveCheck {
        http,
        tcp,
        grpc,
        web_socket,
        port,
        interval,
        unhealthy_interval,
        timeout,
        healthy_threshold,
        unhealthy_threshold,
        only_with_traffic,
        initial_state,
    } = given;
    let probe = match (http, tcp, grpc, web_socket) {
        (Some(http), None, None, None) => Probe::Http(self::http(http, &format!("{at}.http"))?),
        (None, Some(api::TcpCheck {}), None, None) => Probe::Tcp,
        (None, None, Some(api::GrpcCheck { service, host }), None) => {
            Probe::Grpc { service: service.clone().unwrap_or_default(), host: host.clone() }
        }
        (None, None, None, Some(api::WebSocketCheck { path, host, headers })) => Probe::WebSocket {
            path: self::path(path.as_deref(), &format!("{at}.webSocket"))?,
            host: host.clone(),
            headers: self::headers(headers, &format!("{at}.webSocket"))?,
        },
        _ => {
            return Err(Problem::invalid(at, "a health check needs exactly one of http, tcp, grpc and webSocket"));
        }
    };
    if *port == Some(0) {
        return Err(Problem::invalid(format!("{at}.port"), "a port is above zero"));
    }
    let time = |text: &Option<String>, bounds, field: &str| time_within(text, bounds, || format!("{at}.{field}"));
    let interval = time(interval, api::CHECK_INTERVAL, "interval")?.unwrap_or(INTERVAL);
    let unhealthy_interval = time(unhealthy_interval, api::CHECK_INTERVAL, "unhealthyInterval")?.unwrap_or(interval);
    if unhealthy_interval > interval {
        let interval = duration::format(interval);
        let message = format!("unhealthyInterval cannot be more than interval, which is {interval}");
        return Err(Problem::invalid(at, message));
    }
    Ok(HealthCheck {
        probe,
        port: *port,
        interval,
        unhealthy_interval,
        timeout: time(timeout, api::CHECK_TIMEOUT, "timeout")?.unwrap_or(TIMEOUT),
        healthy_threshold: threshold(*healthy_threshold, &format!("{at}.healthyThreshold"))?
            .unwrap_or(HEALTHY_THRESHOLD),
        unhealthy_threshold: threshold(*unhealthy_threshold, &format!("{at}.unhealthyThreshold"))?
            .unwrap_or(UNHEALTHY_THRESHOLD),
        only_with_traffic: *only_with_traffic,
        before_use: *initial_state == Some(api::InitialState::Unhealthy),
    })
}

fn http(given: &api::HttpCheck, at: &str) -> Result<HttpProbe, Problem> {
    let api::HttpCheck { path, method, host, headers, expected_statuses, expected_body, protocol } = given;
    let method = match method {
        Some(api::CheckMethod::Head) => ProbeMethod::Head,
        Some(api::CheckMethod::Get) | None => ProbeMethod::Get,
    };
    if method == ProbeMethod::Head && expected_body.is_some() {
        let message = "the answer to HEAD has no content: expectedBody needs the method GET";
        return Err(Problem::invalid(at, message));
    }
    let statuses = expected_statuses.iter().enumerate().map(|(position, text)| {
        self::statuses(text).ok_or_else(|| {
            let message = format!("{text:?} is not a status from 200 to 599 or a range of them, like \"200-299\"");
            Problem::invalid(format!("{at}.expectedStatuses[{position}]"), message)
        })
    });
    let mut statuses = statuses.collect::<Result<Vec<_>, _>>()?;
    if statuses.is_empty() {
        statuses.push(Statuses(200..=299));
    }
    Ok(HttpProbe {
        protocol: protocol.and_then(|protocol| match protocol {
            api::Protocol::Auto => None,
            api::Protocol::Http1 => Some(Protocol::Http1),
            api::Protocol::Http2 => Some(Protocol::Http2),
        }),
        method,
        path: self::path(path.as_deref(), at)?,
        host: host.clone(),
        headers: self::headers(headers, at)?,
        statuses,
        body: expected_body.clone().filter(|body| !body.is_empty()),
    })
}

/// `200` or `200-299`.
fn statuses(text: &str) -> Option<Statuses> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (200..600).contains(status));
    let (from, to) = (status(from)?, status(to)?);
    (from <= to).then_some(Statuses(from..=to))
}

fn path(given: Option<&str>, at: &str) -> Result<String, Problem> {
    let path = given.unwrap_or("/");
    let plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    match plain && path.parse::<http::uri::PathAndQuery>().is_ok() {
        true => Ok(path.to_owned()),
        false => Err(Problem::invalid(format!("{at}.path"), format_args!("{path:?} is not a path, like \"/healthz\""))),
    }
}

fn headers(given: &[api::Header], at: &str) -> Result<ProbeHeaders, Problem> {
    let fields: Vec<(HeaderName, HeaderValue)> = header_fields(given, &format!("{at}.headers"))?;
    Ok(ProbeHeaders(fields.into()))
}

fn threshold(given: Option<u32>, at: &str) -> Result<Option<u32>, Problem> {
    let (least, most) = api::CHECK_THRESHOLD;
    match given {
        Some(count) if !(least..=most).contains(&count) => {
            Err(Problem::invalid(at, format_args!("{count} is not a count from {least} to {most}")))
        }
        given => Ok(given),
    }
}
