//! Where rate limits are counted that all replicas share. What is limited is said by policies (`api::policy`).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration_text;

/// What the rate limits of policies need of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RateLimits {
    /// The Redis or Valkey that counts limits of `scope: Global`; without it, policies with such a limit let nobody pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
}

/// A Redis from version 5, or a Valkey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Redis {
    /// Host and port, like `redis.shop.svc:6379`.
    pub address: String,
    /// TLS with it; in the clear when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// The user of its access lists; its default user when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password, read whenever a connection is made. White space at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The number of the database.
    pub database: u32,
    /// What all keys begin with.
    pub prefix: String,
    /// How long a request waits for an answer.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
}

/// TLS with a Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RedisTls {
    /// A file with the authorities that are trusted, in PEM, read whenever a connection is made; those of the system when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The name in its certificate; that of `address` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl Default for Redis {
    fn default() -> Self {
        Redis {
            address: String::new(),
            tls: None,
            username: None,
            password_file: None,
            database: 0,
            prefix: "floodway:".to_owned(),
            timeout: Duration::from_millis(100),
        }
    }
}

/// The longest prefix.
const MOST_PREFIX: usize = 64;
/// The longest that a request may wait.
const MOST_TIMEOUT: Duration = Duration::from_secs(10);

impl Redis {
    /// The first field that makes no sense, and why.
    pub(super) fn wrong_value(&self) -> Option<(&'static str, String)> {
        let Redis { address, tls: _, username, password_file, database: _, prefix, timeout } = self;
        let wrong = |wrong: bool, path, message: &str| wrong.then(|| (path, message.to_owned()));
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains([' ', '/', '@']));
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0);
        wrong(port.is_none(), "rateLimits.redis.address", "write host and port, like redis.shop.svc:6379")
            .or_else(|| {
                let message = "a user needs a password, in a file";
                wrong(username.is_some() && password_file.is_none(), "rateLimits.redis.username", message)
            })
            .or_else(|| {
                let plain = prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{' && byte != b'}');
                let message = "write up to 64 visible characters of ASCII without braces, like \"floodway:\"";
                wrong(!plain || prefix.len() > MOST_PREFIX, "rateLimits.redis.prefix", message)
            })
            .or_else(|| {
                let within = (Duration::from_millis(1)..=MOST_TIMEOUT).contains(timeout);
                wrong(!within, "rateLimits.redis.timeout", "write a duration from 1ms to 10s, like \"100ms\"")
            })
    }
}
