//! TLS with endpoints: whom to take them for, and who we are. How certificates and keys are read is `translate`'s; handshakes are
//! made by who connects.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError as Refused, ClientConfig, Error};
use serde::Serialize;

use super::{Protocol, SecretBytes};

/// How TLS is spoken with the endpoints of a cluster. Its sessions are resumed from whatever thread.
#[derive(Clone, Serialize)]
pub struct UpstreamTls {
    /// What it is made of, which is all that two are compared by.
    pub terms: UpstreamTerms,
    /// What a handshake is made with; what is spoken in TLS (ALPN) is `protocol`'s.
    #[serde(skip)]
    pub config: Arc<ClientConfig>,
}

/// What TLS with endpoints is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamTerms {
    /// The name that is asked for (SNI), and that the certificate has to be for; each endpoint's address if `None`.
    #[serde(serialize_with = "shown")]
    pub server_name: Option<ServerName<'static>>,
    /// Names of which the certificate has to be for one instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<String>,
    /// Who has to have signed it, in PEM; `None`: somebody whom the system trusts.
    pub authority: Option<SecretBytes>,
    /// Our own certificate in PEM, and its key.
    pub identity: Option<(SecretBytes, SecretBytes)>,
    /// Whether nothing is verified: whoever answers is believed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// What is spoken in it.
    pub protocol: Protocol,
}

fn shown<S: serde::Serializer>(name: &Option<ServerName<'static>>, serializer: S) -> Result<S::Ok, S::Error> {
    match name {
        Some(name) => serializer.serialize_str(&name.to_str()),
        None => serializer.serialize_none(),
    }
}

impl UpstreamTls {
    /// The same for a cluster that speaks `protocol`, and whose endpoints have a name of which this says nothing.
    pub fn of_cluster(&self, protocol: Protocol, name: Option<&str>) -> Self {
        let mut terms = self.terms.clone();
        terms.protocol = protocol;
        let named = || ServerName::try_from(name?.to_owned()).ok();
        terms.server_name = terms.server_name.or_else(named);
        UpstreamTls { terms, config: self.config_for(protocol) }
    }

    /// The name that the endpoint at an address is asked for.
    pub fn server_name(&self, address: SocketAddr) -> ServerName<'static> {
        self.terms.server_name.clone().unwrap_or_else(|| ServerName::from(address.ip()))
    }

    /// What a handshake is made with for who speaks only this; `Auto` is either.
    pub fn config_for(&self, protocol: Protocol) -> Arc<ClientConfig> {
        if protocol == self.terms.protocol {
            return Arc::clone(&self.config);
        }
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocol.alpn();
        Arc::new(config)
    }
}

/// Why there is no TLS with an endpoint, for people: never in words that the endpoint chose.
pub fn why_no_tls(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(wrong)) => match wrong {
            Refused::Expired | Refused::ExpiredContext { .. } => "its certificate is expired",
            Refused::NotValidYet | Refused::NotValidYetContext { .. } => "its certificate is not valid yet",
            Refused::NotValidForName | Refused::NotValidForNameContext { .. } => "its certificate is for another name",
            Refused::UnknownIssuer => "its certificate is of an unknown authority",
            Refused::BadEncoding => "its certificate is malformed",
            _ => "its certificate cannot be trusted",
        },
        Some(Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            "it speaks no protocol (ALPN) that it may speak"
        }
        Some(Error::AlertReceived(AlertDescription::UnrecognisedName)) => "it does not know the name it was asked for",
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => "it wants a certificate of Floodway",
        Some(Error::AlertReceived(_)) => "it refused the handshake",
        Some(Error::PeerIncompatible(_)) => "it has no version, or no cipher, in common with Floodway",
        Some(Error::InvalidMessage(_)) => "what it speaks is not TLS",
        Some(_) => "it broke the rules of the handshake",
        None => "the connection broke in the handshake",
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) || self.terms == other.terms
    }
}

impl Eq for UpstreamTls {}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.terms.fmt(f)
    }
}
