//! Reading a settings file over defaults, and what no type can say about the values.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ClientCertificates, Listeners, Settings};
use crate::api::{self, validate};
use crate::telemetry::log::Filter;
use crate::yaml::{self, Problem};

/// Why settings cannot be used: one line that names the place, the field and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSettings(pub String);

impl Settings {
    /// What `text`, the content of the file `name`, says; what it leaves out comes from `self`.
    ///
    /// # Errors
    /// The first thing that is wrong with the text.
    pub fn overlaid(&self, name: &str, text: &[u8]) -> Result<Settings, InvalidSettings> {
        let wrong = |problem: Problem| InvalidSettings(format!("{name}:{problem}"));
        let mut documents = yaml::documents(text).into_iter();
        let Some(document) = documents.next() else { return Ok(self.clone()) };
        let document = document.map_err(wrong)?;
        if !document.value.is_object() {
            return Err(wrong(
                document.problem("", "settings are fields with values, like `limits: {connections: 1000}`"),
            ));
        }
        document.read::<Settings>().map_err(wrong)?;
        if let Some((path, message)) = document.value.get("policy").and_then(wrong_policy) {
            return Err(wrong(document.problem(path, message)));
        }
        if let Some(another) = documents.next() {
            let problem = match another {
                Ok(another) => another.problem("", "a settings file is one document; remove the others"),
                Err(problem) => problem,
            };
            return Err(wrong(problem));
        }
        let mut merged = serde_json::to_value(self).map_err(|error| InvalidSettings(error.to_string()))?;
        overlay(&mut merged, document.value.clone());
        let settings = Settings::deserialize(merged).map_err(|error| InvalidSettings(format!("{name}: {error}")))?;
        match settings.wrong_value() {
            Some((path, message)) => Err(wrong(document.problem(path, message))),
            None => Ok(settings),
        }
    }

    /// Checks the values together, after flags have been put over them.
    ///
    /// # Errors
    /// The first field whose value makes no sense.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        match self.wrong_value() {
            Some((path, message)) => Err(InvalidSettings(format!("settings: {path}: {message}"))),
            None => Ok(()),
        }
    }

    fn wrong_value(&self) -> Option<(&'static str, String)> {
        let least = |path, value: u64, least: u64| {
            (value < least).then(|| (path, format!("{value} is too small; use at least {least}")))
        };
        let most = |path, value: u64, most: u64| {
            (value > most).then(|| (path, format!("{value} is too much; use at most {most}")))
        };
        let limits = &self.limits;
        let workers = self.workers.unwrap_or(1);
        let Listeners { http, https, .. } = &self.listeners;
        let nowhere = http.is_empty() && https.is_empty();
        None.or_else(|| nowhere.then(|| ("listeners.http", "name at least one address, here or in https".into())))
            .or_else(|| {
                let all: Vec<_> = http.iter().chain(https).collect();
                let twice = |(index, address): &(usize, &&_)| all[..*index].contains(address);
                let duplicate = all.iter().enumerate().filter(|(_, address)| address.port() != 0).find(twice);
                duplicate.map(|(index, address)| {
                    let path = if index < http.len() { "listeners.http" } else { "listeners.https" };
                    (path, format!("{address} is listed twice; remove one"))
                })
            })
            .or_else(|| least("listeners.tls.handshakesInFlight", self.listeners.tls.handshakes_in_flight as u64, 1))
            .or_else(|| self.class_name.is_empty().then(|| ("className", "must not be empty".into())))
            .or_else(|| self.log.level.parse::<Filter>().err().map(|wrong| ("log.level", wrong.to_string())))
            .or_else(|| self.log.access.is_empty().then(|| ("log.access", "write stdout, off or a file".into())))
            .or_else(|| {
                let tls = &self.listeners.tls;
                (tls.default_certificate.is_some() && tls.default_secret().is_none()).then(|| {
                    (
                        "listeners.tls.defaultCertificate",
                        "write namespace and name of a Secret, like shop/www-tls".into(),
                    )
                })
            })
            .or_else(|| self.listeners.tls.client_certificates.as_ref().and_then(ClientCertificates::wrong))
            .or_else(|| least("listeners.tls.redirectPort", u64::from(self.listeners.tls.redirect_port), 1))
            .or_else(|| {
                let why = "write hosts without a port, like id.example.com or *.example.com";
                self.jwks.hosts().is_none().then(|| ("jwks.allowHosts", why.to_owned()))
            })
            .or_else(|| least("workers", workers as u64, 1))
            .or_else(|| (workers > 1024).then(|| ("workers", format!("{workers} is too many; use at most 1024"))))
            .or_else(|| least("limits.connections", limits.connections as u64, 1))
            .or_else(|| least("limits.headerCount", limits.header_count as u64, 1))
            .or_else(|| least("limits.headerBytes", limits.header_bytes as u64, 1024))
            .or_else(|| least("limits.http2Streams", u64::from(limits.http2_streams), 1))
            .or_else(|| least("limits.streamBufferBytes", limits.stream_buffer_bytes as u64, 16 << 10))
            .or_else(|| most("limits.streamBufferBytes", limits.stream_buffer_bytes as u64, 16 << 20))
            .or_else(|| self.rate_limits.redis.as_ref().and_then(|redis| redis.wrong_value()))
            .or_else(|| {
                let global = self.policy.rate_limit.iter().any(|limit| limit.scope == Some(api::Scope::Global));
                (global && self.rate_limits.redis.is_none()).then(|| {
                    ("policy.rateLimit", "scope Global needs rateLimits.redis, which counts for all replicas".into())
                })
            })
            .or_else(|| most("drain.spreadPercent", u64::from(self.drain.spread_percent), 100))
            .or_else(|| most("tracing.sampledPercent", u64::from(self.tracing.sampled_percent), 100))
            .or_else(|| {
                let keep_alive = self.listeners.tcp_keep_alive;
                (!keep_alive.is_zero() && keep_alive.subsec_nanos() > 0).then(|| {
                    ("listeners.tcpKeepAlive", "the kernel counts whole seconds; write for example \"30s\"".to_owned())
                })
            })
            .or_else(|| {
                let short = [
                    ("listeners.tls.handshakeTimeout", self.listeners.tls.handshake_timeout),
                    ("limits.headerTimeout", limits.header_timeout),
                    ("limits.keepAliveIdle", limits.keep_alive_idle),
                    ("defaults.connect", self.defaults.connect),
                    ("defaults.responseHead", self.defaults.response_head),
                    ("defaults.idle", self.defaults.idle),
                    ("defaults.stall", self.defaults.stall),
                ];
                let zero = short.into_iter().find(|(_, duration)| duration.is_zero());
                zero.map(|(path, _)| (path, "must be longer than 0s".to_owned()))
            })
    }
}

/// Sections of a policy that do not make sense without a namespace, and what they look for in it.
const NEED_NAMESPACE: [(&str, &str); 5] = [
    ("basicAuth", "a Secret"),
    ("apiKey", "a Secret"),
    ("errorPages", "a ConfigMap"),
    ("externalAuth", "a Service or a ProxyUpstream"),
    ("mirror", "a Service or a ProxyUpstream"),
];

/// What is wrong with the default policy, which is the spec of a ProxyPolicy without targets.
fn wrong_policy(spec: &Value) -> Option<(String, String)> {
    if spec.get("targetRefs").is_some() {
        let message = "the policy of the settings is for every request; remove targetRefs";
        return Some(("policy.targetRefs".to_owned(), message.to_owned()));
    }
    let section = NEED_NAMESPACE.into_iter().find(|(section, _)| spec.get(section).is_some());
    let section = section.map(|(section, what)| (section.to_owned(), what)).or_else(|| referring_keys(spec));
    if let Some((section, what)) = section {
        let message =
            format!("this needs {what}, and settings have no namespace to look for it in; say it in a ProxyPolicy");
        return Some((format!("policy.{section}"), message));
    }
    let object = json!({"metadata": {"name": "settings"}, "spec": spec});
    let violation = validate("ProxyPolicy", &object).into_iter().next()?;
    let path = violation.path.strip_prefix("spec").map_or(String::new(), |path| format!("policy{path}"));
    Some((path, violation.message))
}

/// The keys of an issuer that are in an object, or are verified by one.
fn referring_keys(spec: &Value) -> Option<(String, &'static str)> {
    let issuers = spec.pointer("/jwt/issuers")?.as_array()?;
    issuers.iter().enumerate().find_map(|(at, issuer)| {
        let fields = [("secretName", "a Secret"), ("caSecretName", "a Secret"), ("caConfigMapName", "a ConfigMap")];
        let is_there = |(field, _): &(&str, &str)| issuer.pointer(&format!("/jwks/{field}")).is_some();
        let (field, what) = fields.into_iter().find(is_there)?;
        Some((format!("jwt.issuers[{at}].jwks.{field}"), what))
    })
}

/// Puts `over` on `under`, field by field; lists are replaced whole.
fn overlay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                overlay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        Settings::default().overlaid("f.yaml", text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_stays() {
        let mut base = Settings::default();
        base.listeners.http = vec!["127.0.0.1:1".parse().unwrap()];
        base.drain.delay = Duration::from_secs(9);
        let settings = base.overlaid("f", b"limits: {connections: 7, bodyBytes: 10}\ndrain: {grace: 1m}\n").unwrap();
        assert_eq!(settings.limits.connections, 7);
        assert_eq!(settings.limits.body_bytes, Some(10));
        assert_eq!(settings.limits.header_count, 100);
        assert_eq!(settings.listeners, base.listeners);
        assert_eq!(settings.drain.delay, Duration::from_secs(9));
        assert_eq!(settings.drain.grace, Duration::from_secs(60));
        assert_eq!(read(""), Ok(Settings::default()));
        assert_eq!(read("# nothing\n"), Ok(Settings::default()));
    }

    #[test]
    fn defaults_survive_being_written_and_read() {
        let text = serde_yaml::to_string(&Settings::default()).unwrap();
        assert_eq!(read(&text), Ok(Settings::default()));
    }

    #[test]
    fn the_documented_file_names_every_setting_with_its_default() {
        let text = include_str!("../../docs/settings.yaml");
        assert_eq!(read(text), Ok(Settings::default()));
        let written = yaml::documents(text.as_bytes()).remove(0).unwrap().value;
        assert_eq!(written, serde_json::to_value(Settings::default()).unwrap());
    }

    #[test]
    fn errors_name_place_field_and_remedy() {
        for (text, told) in [
            (
                "limits:\n  conections: 5\n",
                "f.yaml:2:3: limits.conections: unknown field `conections`, expected one of ",
            ),
            ("limits:\n  conections: 5\n", "did you mean `connections`?"),
            ("limits: {connections: many}\n", "f.yaml:1:23: limits.connections: invalid type: string \"many\""),
            ("limits: {connections: 0}\n", "f.yaml:1:23: limits.connections: 0 is too small; use at least 1"),
            ("drain:\n  grace: 5\n", "f.yaml:2:10: drain.grace: invalid type: integer `5`, expected a string"),
            ("drain:\n  grace: 5 s\n", "is not a duration; write for example \"30s\""),
            ("listeners: {http: [\"80\"]}\n", "f.yaml:1:20: listeners.http[0]: invalid socket address"),
            ("listeners: {http: []}\n", "f.yaml:1:13: listeners.http: name at least one address"),
            (
                "limits: {streamBufferBytes: 1000}\n",
                "f.yaml:1:29: limits.streamBufferBytes: 1000 is too small; use at least 16384",
            ),
            ("limits: {streamBufferBytes: 16777217}\n", "16777217 is too much; use at most 16777216"),
            ("listeners: {tcpKeepAlive: 500ms}\n", "listeners.tcpKeepAlive: the kernel counts whole seconds"),
            ("defaults: {stall: 0s}\n", "f.yaml:1:19: defaults.stall: must be longer than 0s"),
            ("drain: {spreadPercent: 101}\n", "f.yaml:1:24: drain.spreadPercent: 101 is too much; use at most 100"),
            ("tracing: {sampledPercent: 101}\n", "tracing.sampledPercent: 101 is too much; use at most 100"),
            ("log: {level: loud}\n", "f.yaml:1:14: log.level: \"loud\" is not a log level; write off"),
            ("log: {format: xml}\n", "f.yaml:1:15: log.format: unknown variant `xml`, expected `json` or `text`"),
            (
                "listeners: {tls: {clientCertificates: {mode: Optional}}}\n",
                "listeners.tls.clientCertificates: name exactly one of caSecret and caConfigMap",
            ),
            (
                "listeners: {tls: {clientCertificates: {caSecret: a}}}\n",
                "listeners.tls.clientCertificates.caSecret: write namespace and name",
            ),
            ("a: [\n", "f.yaml:"),
            ("policy: {basicAuth: {secretName: a}}\n", "policy.basicAuth: this needs a Secret"),
            ("policy: {errorPages: []}\n", "policy.errorPages: this needs a ConfigMap"),
            (
                "policy: {jwt: {issuers: [{issuer: a, jwks: {secretName: a}}]}}\n",
                "policy.jwt.issuers[0].jwks.secretName: this needs a Secret",
            ),
            (
                "jwks: {allowHosts: [\"https://id.example.com\"]}\n",
                "f.yaml:1:8: jwks.allowHosts: write hosts without a port",
            ),
            ("rateLimits: {redis: {address: redis}}\n", "rateLimits.redis.address: write host and port"),
            ("rateLimits: {redis: {address: \"a:1\", password: hush}}\n", "unknown field `password`"),
            ("rateLimits: {redis: {address: \"a:1\", username: b}}\n", "rateLimits.redis.username: a user needs"),
            ("rateLimits: {redis: {address: \"a:1\", prefix: \"a{b}\"}}\n", "without braces"),
            ("rateLimits: {redis: {address: \"a:1\", timeout: 1m}}\n", "write a duration from 1ms to 10s"),
            (
                "policy: {rateLimit: [{name: a, requests: 1, per: 1s, scope: Global}]}\n",
                "policy.rateLimit: scope Global needs rateLimits.redis",
            ),
            ("workers: 2\n---\nworkers: 3\n", "f.yaml:3:1: document 2: a settings file is one document"),
            ("[1]\n", "f.yaml:1:1: settings are fields with values"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told), "{text:?}\n  gave {error}\n  not  {told}");
        }
    }
}
