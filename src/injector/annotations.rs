//! What a pod asks for: its annotations, read strictly. What cannot be read refuses the pod, in a sentence with the annotation, its
//! value and the remedy.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::inject::Refusal;
use super::template::Mode;
use super::{OWN_PORTS, PREFIX};
use crate::telemetry::log::Filter;

/// Entries of a list. More ports are a protocol that should not be captured at all, and each address makes a rule.
const LONGEST: usize = 64;
/// Characters of a value that are repeated in a refusal.
const SHOWN: usize = 64;

/// Everything that an annotation may be called.
const KNOWN: [&str; 18] = [
    "access-log",
    "app-port",
    "client-ca-secret",
    "client-certificates",
    "cpu-request",
    "exclude-inbound-ports",
    "exclude-outbound-addresses",
    "exclude-outbound-ports",
    "inbound-ports",
    "inject",
    "log-level",
    "memory-limit",
    "memory-request",
    "mode",
    "policies",
    "status",
    "tls-secret",
    "upstream",
];
/// Those that mean something only where connections are redirected.
const TRANSPARENT: [&str; 4] =
    ["inbound-ports", "exclude-inbound-ports", "exclude-outbound-ports", "exclude-outbound-addresses"];

/// What a pod asks for. `None` and empty: nothing was said.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) mode: Mode,
    pub(super) app_port: Option<u16>,
    pub(super) inbound_ports: Option<Vec<u16>>,
    pub(super) exclude_inbound: Vec<u16>,
    pub(super) exclude_outbound: Vec<u16>,
    pub(super) exclude_addresses: Vec<IpNet>,
    pub(super) policies: Vec<String>,
    pub(super) tls_secret: Option<String>,
    pub(super) client_ca_secret: Option<String>,
    pub(super) client_certificates: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) cpu_request: Option<String>,
    pub(super) memory_request: Option<String>,
    pub(super) memory_limit: Option<String>,
    pub(super) log: Option<String>,
    pub(super) access_log: Option<String>,
}

impl Wishes {
    /// What incoming requests have to bring along, or are held to.
    pub(super) fn demands(&self) -> bool {
        !self.policies.is_empty() || self.tls_secret.is_some()
    }

    /// Reads the annotations of a pod that has opted in.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn read(annotations: &BTreeMap<String, String>, default: Mode) -> Result<Self, Refusal> {
        let ours = annotations.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())));
        let ours: BTreeMap<&str, &str> = ours.collect();
        for name in ours.keys() {
            if !KNOWN.contains(name) {
                return Err(unknown(name));
            }
        }
        let said = |name: &str| ours.get(name).map(|value| Said { name: name.to_owned(), value: value.trim() });
        let mode = said("mode").map_or(Ok(default), |said| match said.value {
            "local" => Ok(Mode::Local),
            "transparent" => Ok(Mode::Transparent),
            _ => Err(said.wrong("write \"local\" or \"transparent\"")),
        })?;
        if mode == Mode::Local
            && let Some(said) = TRANSPARENT.into_iter().find_map(said)
        {
            return Err(said.wrong(
                "it means something only where connections are redirected; set mode to \"transparent\", or leave it out",
            ));
        }
        let wishes = Wishes {
            mode,
            app_port: said("app-port").map(|said| said.port(said.value)).transpose()?,
            inbound_ports: said("inbound-ports").map(|said| said.ports()).transpose()?,
            exclude_inbound: said("exclude-inbound-ports").map_or(Ok(Vec::new()), |said| said.ports())?,
            exclude_outbound: said("exclude-outbound-ports").map_or(Ok(Vec::new()), |said| said.ports())?,
            exclude_addresses: said("exclude-outbound-addresses").map_or(Ok(Vec::new()), |said| said.networks())?,
            policies: said("policies").map_or(Ok(Vec::new()), |said| said.names())?,
            tls_secret: said("tls-secret").map(|said| said.name()).transpose()?,
            client_ca_secret: said("client-ca-secret").map(|said| said.name()).transpose()?,
            client_certificates: said("client-certificates").map(|said| said.certificates()).transpose()?,
            upstream: said("upstream").map(|said| said.name()).transpose()?,
            cpu_request: said("cpu-request").map(|said| said.quantity()).transpose()?,
            memory_request: said("memory-request").map(|said| said.quantity()).transpose()?,
            memory_limit: said("memory-limit").map(|said| said.quantity()).transpose()?,
            log: said("log-level").map(|said| said.filter()).transpose()?,
            access_log: said("access-log").map(|said| said.access_log()).transpose()?,
        };
        if let (Some(said), None) = (said("client-ca-secret"), &wishes.tls_secret) {
            return Err(said.wrong("clients show certificates in TLS only; set tls-secret, too, or leave it out"));
        }
        if let (Some(said), None) = (said("client-certificates"), &wishes.client_ca_secret) {
            return Err(said.wrong(
                "nothing says whose certificates are good; set client-ca-secret and tls-secret, too, or leave it out",
            ));
        }
        Ok(wishes)
    }
}

fn unknown(name: &str) -> Refusal {
    let near = KNOWN.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
    let near = near.filter(|(distance, _)| *distance <= 3).map(|(_, known)| format!("; did you mean {PREFIX}{known}?"));
    let remedy = near.unwrap_or_else(|| "; take it away, or see docs/sidecar.md for those that there are".to_owned());
    Refusal(format!("the annotation {PREFIX}{} is not known{remedy}", shown(name)))
}

fn shown(text: &str) -> String {
    let mut shown: String =
        text.chars().take(SHOWN).map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// One annotation.
struct Said<'a> {
    name: String,
    value: &'a str,
}

impl Said<'_> {
    fn wrong(&self, remedy: &str) -> Refusal {
        Refusal(format!("the annotation {PREFIX}{} is \"{}\": {remedy}", self.name, shown(self.value)))
    }

    fn port(&self, text: &str) -> Result<u16, Refusal> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u16>() {
            Ok(port) if digits && port > 0 && !OWN_PORTS.contains(&port) => Ok(port),
            Ok(port) if digits && port > 0 => {
                Err(self.wrong(&format!("{port} is a port of the sidecar itself; name one of the pod's")))
            }
            _ => Err(self.wrong(&format!("\"{}\" is not a port; write a number from 1 to 65535", shown(text)))),
        }
    }

    /// The parts between commas.
    fn list<T: PartialEq>(&self, read: impl Fn(&str) -> Result<T, Refusal>) -> Result<Vec<T>, Refusal> {
        let mut list = Vec::new();
        for part in self.value.split(',').map(str::trim) {
            let part = read(part)?;
            if !list.contains(&part) {
                list.push(part);
            }
            if list.len() > LONGEST {
                return Err(self.wrong(&format!("these are more than {LONGEST}; leave some out")));
            }
        }
        Ok(list)
    }

    fn ports(&self) -> Result<Vec<u16>, Refusal> {
        self.list(|part| self.port(part))
    }

    fn networks(&self) -> Result<Vec<IpNet>, Refusal> {
        self.list(|part| {
            let network = part.parse::<IpNet>().or_else(|_| part.parse::<std::net::IpAddr>().map(IpNet::from));
            network.map(|network| network.trunc()).map_err(|_| {
                self.wrong(&format!("\"{}\" is no block of addresses; write for example 10.0.0.0/8", shown(part)))
            })
        })
    }

    fn names(&self) -> Result<Vec<String>, Refusal> {
        self.list(|part| self.object(part))
    }

    fn name(&self) -> Result<String, Refusal> {
        self.object(self.value)
    }

    /// A name of an object (RFC 1123, a subdomain).
    fn object(&self, text: &str) -> Result<String, Refusal> {
        let label = |label: &str| {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty() && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            return Ok(text.to_owned());
        }
        let remedy = format!(
            "\"{}\" is no name of an object; write names of the pod's own namespace: a-z, 0-9, - and .",
            shown(text)
        );
        Err(self.wrong(&remedy))
    }

    fn certificates(&self) -> Result<String, Refusal> {
        match self.value {
            "Required" | "Optional" => Ok(self.value.to_owned()),
            _ => Err(self.wrong("write \"Required\" or \"Optional\"")),
        }
    }

    /// A quantity, as far as resources have them: digits, a fraction, a unit.
    fn quantity(&self) -> Result<String, Refusal> {
        let digits = self.value.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, unit) = self.value.split_at(digits);
        let units = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
        let positive = number.len() <= 15 && number.parse::<f64>().is_ok_and(|number| number > 0.0);
        if positive && number.starts_with(|first: char| first.is_ascii_digit()) && units.contains(&unit) {
            return Ok(self.value.to_owned());
        }
        Err(self.wrong("it is not an amount; write for example 50m of a processor, or 32Mi of memory"))
    }

    /// The file system of the sidecar cannot be written to, so that it is not among the places.
    fn access_log(&self) -> Result<String, Refusal> {
        match self.value {
            "stdout" | "off" => Ok(self.value.to_owned()),
            _ => Err(self.wrong("write \"stdout\" or \"off\"")),
        }
    }

    fn filter(&self) -> Result<String, Refusal> {
        match self.value.parse::<Filter>() {
            Ok(_) => Ok(self.value.to_owned()),
            Err(invalid) => Err(self.wrong(&invalid.to_string())),
        }
    }
}
