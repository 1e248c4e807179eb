//! What was found, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::served::{Host, show};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    /// The word, as wide as all of them, and its colour.
    const fn shown(self) -> (&'static str, &'static str) {
        match self {
            Level::Ok => ("OK  ", "32"),
            Level::Warn => ("WARN", "33"),
            Level::Fail => ("FAIL", "31"),
        }
    }
}

/// What is looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Check {
    ApiServer,
    Definitions,
    Installation,
    Settings,
    Rights,
    Lease,
    Injector,
    Sidecars,
    Objects,
    Endpoints,
    Certificates,
    RateLimits,
    AdminPort,
    Time,
}

impl Check {
    const fn title(self) -> &'static str {
        match self {
            Check::ApiServer => "API server",
            Check::Definitions => "Custom resource definitions",
            Check::Installation => "Installation",
            Check::Settings => "Settings",
            Check::Rights => "Rights",
            Check::Lease => "Lease",
            Check::Injector => "Injector",
            Check::Sidecars => "Sidecars",
            Check::Objects => "Routes, upstreams and policies",
            Check::Endpoints => "Endpoints",
            Check::Certificates => "Certificates",
            Check::RateLimits => "Redis of rate limits",
            Check::AdminPort => "Admin port",
            Check::Time => "Time",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) level: Level,
    /// The object or the place that is meant.
    pub(super) place: String,
    /// What is so, or what is wrong.
    pub(super) message: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) remedy: String,
}

/// All that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Of the program that looked.
    version: &'static str,
    findings: Vec<Finding>,
    /// What would be served.
    pub(super) served: Vec<Host>,
}

/// Findings of a check and level that a terminal is shown.
const SHOWN: usize = 40;

impl Default for Report {
    fn default() -> Self {
        Report { version: env!("CARGO_PKG_VERSION"), findings: Vec::new(), served: Vec::new() }
    }
}

impl Report {
    pub(super) fn ok(&mut self, check: Check, place: impl Into<String>, message: impl Into<String>) {
        self.add(check, Level::Ok, place, message, "");
    }

    pub(super) fn warn(
        &mut self,
        check: Check,
        place: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check, Level::Warn, place, message, remedy);
    }

    pub(super) fn fail(
        &mut self,
        check: Check,
        place: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check, Level::Fail, place, message, remedy);
    }

    pub(super) fn add(
        &mut self,
        check: Check,
        level: Level,
        place: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (place, message, remedy) = (place.into(), message.into(), remedy.into());
        self.findings.push(Finding { check, level, place, message, remedy });
    }

    /// Whether something does not work.
    pub(super) fn fails(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Fail)
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// For programs.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let text = serde_json::to_string_pretty(self)?;
        Ok(text + "\n")
    }

    /// For people.
    pub(super) fn text(&self, colours: bool) -> String {
        let paint = |text: &str, code: &str| match colours {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let mut text = String::new();
        let mut findings: Vec<_> = self.findings.iter().collect();
        findings.sort_by_key(|finding| (finding.check, std::cmp::Reverse(finding.level)));
        for of_check in findings.chunk_by(|one, next| one.check == next.check) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", paint(of_check[0].check.title(), "1"));
            for of_level in of_check.chunk_by(|one, next| one.level == next.level) {
                let (word, colour) = of_level[0].level.shown();
                for finding in of_level.iter().take(SHOWN) {
                    let Finding { place, message, remedy, .. } = finding;
                    let colon = if place.is_empty() { "" } else { ": " };
                    let _ = writeln!(text, "  {}  {place}{colon}{message}", paint(word, colour));
                    if !remedy.is_empty() {
                        let _ = writeln!(text, "        {}", paint(&format!("-> {remedy}"), "2"));
                    }
                }
                if of_level.len() > SHOWN {
                    let _ = writeln!(text, "        and {} more; --json has all", of_level.len() - SHOWN);
                }
            }
        }
        show(&mut text, &self.served, |heading| paint(heading, "1"));
        let [ok, warn, fail] = [Level::Ok, Level::Warn, Level::Fail].map(|level| self.count(level));
        let said = format!("{ok} ok, {}, {}", counted(warn, "warning"), counted(fail, "failure"));
        let colour = match (warn, fail) {
            (_, 1..) => "31",
            (1.., _) => "33",
            _ => "32",
        };
        let _ = writeln!(text, "\n{}", paint(&said, colour));
        text
    }
}

/// `1 warning`, `2 warnings`
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Names that a sentence has.
const NAMED: usize = 5;

/// `a, b and 3 more`
pub(super) fn named(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_the_worst_first_and_colours_only_where_they_are_wanted() {
        let mut report = Report::default();
        report.ok(Check::Lease, "a/b", "held");
        report.fail(Check::Lease, "a/c", "stale", "wait");
        report.ok(Check::ApiServer, "", "v1.33.1");
        let expected = "\
API server
  OK    v1.33.1
Lease
  FAIL  a/c: stale
        -> wait
  OK    a/b: held

2 ok, 0 warnings, 1 failure
";
        assert_eq!(report.text(false), expected);
        assert!(report.text(true).contains("\x1b[31mFAIL\x1b[0m  a/c"), "{}", report.text(true));
        assert!(report.fails());
    }

    #[test]
    fn a_terminal_is_not_flooded_and_a_program_gets_all() {
        let mut report = Report::default();
        for at in 0..100 {
            report.warn(Check::Objects, format!("ns/{at}"), "no", "");
        }
        let text = report.text(false);
        assert!(text.contains("and 60 more; --json has all") && !text.contains("ns/40:"), "{text}");
        assert!(report.json().is_ok_and(|json| json.contains("ns/99") && json.contains("\"WARN\"")));
        assert!(!report.fails());
    }
}
