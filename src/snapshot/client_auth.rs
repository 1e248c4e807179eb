//! How clients are verified who show certificates: by the terms of a host, made ready for its handshakes. How authorities and
//! revocation lists are read is `translate`'s; handshakes are `proxy`'s.

use std::fmt;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use serde::{Serialize, Serializer};

use super::Invalid;

/// What is asked of the clients of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientTerms {
    /// Whether clients without a certificate are refused.
    pub required: bool,
    /// Where the authorities are from that have to have signed, for people: `Secret shop/partners-ca`.
    pub authority: Arc<str>,
    /// What endpoints are told of who a client is.
    pub forward: ClientHeaders,
}

/// In which header fields endpoints are told who a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ClientHeaders {
    /// `Client-Cert` (RFC 9440 2.2).
    pub certificate: bool,
    /// `Client-Cert-Chain` (RFC 9440 2.3).
    pub chain: bool,
    /// `X-Forwarded-Client-Cert`, as Envoy has it.
    pub xfcc: bool,
    /// `ssl-client-*`, as ingress-nginx has them.
    pub ssl_client: bool,
}

/// How the clients of a host are verified.
#[derive(Clone)]
pub struct ClientAuth {
    /// What is asked.
    pub terms: Arc<ClientTerms>,
    /// Of everything by which a certificate is judged. A session is resumed only under the same, and only hosts with the same share
    /// connections.
    pub digest: [u8; 32],
    /// Until when nothing of that expires, in seconds since 1970.
    pub good_until: Option<i64>,
    /// What judges. `None`: an authority or a list is missing or broken, and nobody is served.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What a route asks of its clients, whoever says the terms of its hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ClientAsked {
    /// That they were verified on such terms.
    Terms(Arc<ClientTerms>),
    /// Nobody can say, because it is not written as it should be: nobody passes.
    Invalid(Invalid),
}

impl ClientAuth {
    /// Whether clients without a certificate are refused.
    pub fn requires(&self) -> bool {
        self.terms.required
    }
}

impl PartialEq for ClientAuth {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
            && self.terms == other.terms
            && self.verifier.is_some() == other.verifier.is_some()
            && self.good_until == other.good_until
    }
}

impl Eq for ClientAuth {}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClientAuth { terms, digest: _, good_until, verifier } = self;
        f.debug_struct("ClientAuth")
            .field("terms", terms)
            .field("good_until", good_until)
            .field("usable", &verifier.is_some())
            .finish_non_exhaustive()
    }
}

impl Serialize for ClientAuth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// What people are shown.
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(flatten)]
            terms: &'a ClientTerms,
            #[serde(skip_serializing_if = "Option::is_none")]
            good_until: Option<i64>,
            usable: bool,
        }
        let ClientAuth { terms, digest: _, good_until, verifier } = self;
        Shown { terms, good_until: *good_until, usable: verifier.is_some() }.serialize(serializer)
    }
}
