//! Upstreams as a table for people.

use std::fmt::Write;

use crate::admin::upstreams::{Breaker, Ejected, Endpoint, LastCheck, Limit, Upstreams};

const HEADS: [&str; 8] = ["ENDPOINT", "STATE", "HEALTH", "EJECTED", "BREAKER", "OUTSTANDING", "EWMA", "WEIGHT"];
/// Columns of numbers, which end at the right.
const NUMBERS: [bool; 8] = [false, false, false, false, false, true, true, true];
/// Between two columns.
const GAP: usize = 2;

enum Row {
    /// The name of an upstream, and how many of its endpoints may get requests.
    Upstream(String, bool),
    Endpoint([String; 8], bool),
}

/// One line per endpoint, below one per upstream.
pub(super) fn table(upstreams: &Upstreams, colours: bool) -> String {
    if upstreams.upstreams.is_empty() {
        return "No upstreams: no route leads to a backend.\n".to_owned();
    }
    let mut rows = Vec::new();
    for upstream in &upstreams.upstreams {
        let members = upstream.endpoints.iter().filter(|endpoint| !endpoint.gone).count();
        let breaker = upstream.breaker.as_ref().map_or_else(String::new, |held| format!(", breaker {}", breaker(held)));
        let limits: String = upstream.limits.iter().map(limit).collect();
        let name = format!("{} ({} of {members} available{breaker}{limits})", upstream.name, upstream.available);
        let is_closed = upstream.breaker.as_ref().is_none_or(|breaker| !breaker.state.contains("open"));
        rows.push(Row::Upstream(name, upstream.available == members && members > 0 && is_closed));
        rows.extend(upstream.endpoints.iter().map(|endpoint| Row::Endpoint(cells(endpoint), endpoint.available)));
    }
    let mut widths = HEADS.map(str::len);
    for row in &rows {
        if let Row::Endpoint(cells, _) = row {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    let paint = |text: &str, code: &str| match colours {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let mut text = paint(&line(&HEADS.map(str::to_owned), &widths), "1") + "\n";
    for row in rows {
        let line = match row {
            Row::Upstream(name, true) => name,
            Row::Upstream(name, false) => paint(&name, "33"),
            Row::Endpoint(cells, true) => line(&cells, &widths),
            Row::Endpoint(cells, false) => paint(&line(&cells, &widths), "31"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

fn cells(endpoint: &Endpoint) -> [String; 8] {
    let Endpoint { address, available, gone, health, last_check, ejected, breaker, outstanding, first_byte_ms, weight } =
        endpoint;
    let state = match (gone, available) {
        (true, _) => "gone",
        (false, true) => "available",
        (false, false) => "out",
    };
    [
        format!("  {address}"),
        state.to_owned(),
        match last_check {
            Some(LastCheck { passed: false, reason, .. }) => format!("{health}, {reason}"),
            _ => health.clone(),
        },
        ejected.as_ref().map_or_else(|| "-".to_owned(), self::ejected),
        breaker.as_ref().map_or_else(|| "-".to_owned(), self::breaker),
        outstanding.to_string(),
        first_byte_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}ms")),
        weight.to_string(),
    ]
}

/// `failures, 28s left (2nd time)`
fn ejected(Ejected { why, times, remaining_ms }: &Ejected) -> String {
    let left = short(*remaining_ms);
    match times {
        0 | 1 => format!("{why}, {left} left"),
        times => format!("{why}, {left} left, {times} times"),
    }
}

/// `open, 4s left`
fn breaker(Breaker { state, remaining_ms, .. }: &Breaker) -> String {
    match remaining_ms {
        Some(ms) => format!("{state}, {} left", short(*ms)),
        None => state.clone(),
    }
}

/// `, requests 300/300 and 12 waiting`
fn limit((what, &Limit { active, most, pending }): (&String, &Limit)) -> String {
    let waiting = pending.filter(|count| *count > 0).map_or_else(String::new, |count| format!(" and {count} waiting"));
    format!(", {what} {active}/{most}{waiting}")
}

fn short(ms: u64) -> String {
    // Rounded up, so that it ends with 1s.
    let seconds = ms.div_ceil(1000);
    if seconds < 120 { format!("{seconds}s") } else { format!("{}m{:02}s", seconds / 60, seconds % 60) }
}

fn line(cells: &[String; 8], widths: &[usize; 8]) -> String {
    let mut line = String::new();
    for ((cell, width), number) in cells.iter().zip(widths).zip(NUMBERS) {
        if !line.is_empty() {
            line.extend(std::iter::repeat_n(' ', GAP));
        }
        let _ = if number { write!(line, "{cell:>width$}") } else { write!(line, "{cell:<width$}") };
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(json: &str) -> Upstreams {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn columns_are_in_line() {
        let upstreams = read(
            r#"{"upstreams": [
                {"name": "demo/clock:80", "available": 0, "endpoints": []},
                {"name": "demo/echo:80", "available": 1, "someday": 1,
                 "breaker": {"state": "half_open", "calls": 2, "failed": 1, "slow": 0},
                 "limits": {"requests": {"active": 10, "most": 10, "pending": 3}, "retries": {"active": 1, "most": 5},
                    "streams": {"active": 0, "most": 9, "pending": 0}}, "endpoints": [
                    {"address": "127.0.0.1:18084", "available": false, "health": "unchecked", "outstanding": 0, "weight": 1,
                     "ejected": {"why": "failures", "times": 2, "remainingMs": 59100}, "someday": []},
                    {"address": "[fd00::1]:80", "available": true, "health": "healthy", "outstanding": 1234,
                     "breaker": {"state": "open", "remainingMs": 4100, "calls": 20, "failed": 11, "slow": 3},
                     "firstByteMs": 12.3456, "weight": 100},
                    {"address": "10.0.0.1:80", "available": false, "gone": true, "health": "unhealthy", "outstanding": 3,
                     "weight": 0, "lastCheck": {"passed": false, "reason": "status 503", "agoMs": 12}}
                ]}
            ]}"#,
        );
        let expected = "\
ENDPOINT           STATE      HEALTH                 EJECTED                      BREAKER        OUTSTANDING    EWMA  WEIGHT
demo/clock:80 (0 of 0 available)
demo/echo:80 (1 of 2 available, breaker half_open, requests 10/10 and 3 waiting, retries 1/5, streams 0/9)
  127.0.0.1:18084  out        unchecked              failures, 60s left, 2 times  -                        0       -       1
  [fd00::1]:80     available  healthy                -                            open, 5s left         1234  12.3ms     100
  10.0.0.1:80      gone       unhealthy, status 503  -                            -                        3       -       0
";
        assert_eq!(table(&upstreams, false), expected);
        let coloured = table(&upstreams, true);
        assert!(
            coloured.contains("\x1b[33mdemo/echo:80 (1 of 2 available, breaker half_open, requests 10/10 and 3 waiting, retries 1/5, streams 0/9)\x1b[0m\n\x1b[31m  127"),
            "{coloured}"
        );
        assert!(table(&read(r#"{"upstreams": []}"#), false).starts_with("No upstreams"));
    }

    #[test]
    fn long_times_are_in_minutes() {
        let out = |remaining_ms| ejected(&Ejected { why: "latency".to_owned(), times: 1, remaining_ms });
        assert_eq!(out(1), "latency, 1s left");
        assert_eq!(out(125_000), "latency, 2m05s left");
    }
}
