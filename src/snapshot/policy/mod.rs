//! Who may pass, and on what terms: what all policies together say of the requests of one route, made ready to be asked.

mod access;
mod basic;
mod beyond;
mod client;
mod compression;
mod cors;
mod external;
mod fetched;
mod headers;
mod jwk;
mod jwt;
mod key;
mod key_url;
mod limits;
mod mirror;
mod pages;
mod place;
mod rate_limit;

use std::sync::Arc;

use serde::Serialize;

pub use access::{IpAccess, Networks};
pub use basic::BasicAuth;
pub use client::{ClientCertificate, ClientName};
pub use compression::Compression;
pub use cors::{Below, Cors, Origins};
pub use external::ExternalAuth;
pub use fetched::{CurrentKeys, Fetched, FetchedKeys, IssuerKeys, KeySource, RemoteKeys};
pub use headers::{Headers, Names};
pub use jwk::{Algorithm, InvalidKeys, Key, Keys};
pub use jwt::{ClaimHeader, ClaimRule, Issuer, Jwt};
pub use key::{ApiKey, Keyring};
pub use key_url::{InvalidUrl, KeyHosts, KeyUrl};
pub use limits::{MediaTypes, Methods, RequestLimits};
pub use mirror::Mirror;
pub use pages::{ErrorPage, Page};
pub use place::TokenPlace;
pub use rate_limit::{FramesFrom, MessageRate, MissingKey, OnFailure, RateKey, RateLimit, RequestRate, Tell};

use super::Invalid;

/// What is asked of requests. What is `None` is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Why the policy cannot be applied: nobody passes then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid: Option<Invalid>,
    /// From which addresses requests may come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_access: Option<Arc<IpAccess>>,
    /// Which pages of other origins may read answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Arc<Cors>>,
    /// What becomes of the fields of requests and answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Arc<Headers>>,
    /// Which answers are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Arc<Compression>>,
    /// What answers to failures look like; the first that fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_pages: Option<Arc<[ErrorPage]>>,
    /// How large requests may be, and of which kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_limits: Option<Arc<RequestLimits>>,
    /// Which clients may pass, by their certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// Users with passwords.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<Arc<BasicAuth>>,
    /// Keys of programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Arc<ApiKey>>,
    /// How much may come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Arc<[RateLimit]>>,
    /// Which tokens requests have to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Arc<Jwt>>,
    /// Whom another service lets pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<Arc<ExternalAuth>>,
    /// Who gets copies of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Arc<Mirror>>,
}

impl Policy {
    /// What is said here, and of the rest what `farther` says. What cannot be applied, here or there, lets nobody pass.
    pub fn before(&self, farther: &Policy) -> Policy {
        let Policy {
            invalid,
            ip_access,
            cors,
            headers,
            compression,
            error_pages,
            request_limits,
            client_certificate,
            basic_auth,
            api_key,
            rate_limit,
            jwt,
            external_auth,
            mirror,
        } = self.clone();
        Policy {
            invalid: invalid.or_else(|| farther.invalid.clone()),
            ip_access: ip_access.or_else(|| farther.ip_access.clone()),
            cors: cors.or_else(|| farther.cors.clone()),
            headers: headers.or_else(|| farther.headers.clone()),
            compression: compression.or_else(|| farther.compression.clone()),
            error_pages: error_pages.or_else(|| farther.error_pages.clone()),
            request_limits: request_limits.or_else(|| farther.request_limits.clone()),
            client_certificate: client_certificate.or_else(|| farther.client_certificate.clone()),
            basic_auth: basic_auth.or_else(|| farther.basic_auth.clone()),
            api_key: api_key.or_else(|| farther.api_key.clone()),
            rate_limit: rate_limit.or_else(|| farther.rate_limit.clone()),
            jwt: jwt.or_else(|| farther.jwt.clone()),
            external_auth: external_auth.or_else(|| farther.external_auth.clone()),
            mirror: mirror.or_else(|| farther.mirror.clone()),
        }
    }
}
