//! The authorities and revocation lists that are named, made ready to judge certificates of clients.

use std::sync::Arc;

use ring::digest::{self, SHA256};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};

use super::{ClientPlan, Holder, ListPlan};
use crate::api::{ExpiredList, RevocationScope};
use crate::snapshot::x509::next_update;
use crate::snapshot::{ClientAuth, ClientHeaders, ClientTerms, SecretBytes};
use crate::translate::conditions::reason;
use crate::translate::{AUTHORITIES, REVOKED, Resources, UNREAD_CONFIG_MAP, UNREAD_SECRET};

/// Authorities, of which each handshake names all; more are a bundle of the web's by mistake.
const MOST_AUTHORITIES: usize = 128;
/// Revocation lists.
const MOST_LISTS: usize = 128;

/// What judges, the digest of what by, and until when that is good.
type Judge = (Arc<dyn ClientCertVerifier>, [u8; 32], Option<i64>);

const REFUSED: &str = "until that is put right, handshakes for hosts that need it are refused";

/// Why certificates cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The field, behind that of the section.
    pub(super) field: &'static str,
    pub(super) reason: &'static str,
    pub(super) why: String,
}

/// What became of a plan.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) auth: Arc<ClientAuth>,
    pub(super) wrong: Option<Wrong>,
}

impl ClientPlan {
    /// What judges certificates by it, or why nothing does.
    pub(super) fn made(&self, resources: &Resources) -> Made {
        let terms = Arc::new(self.terms());
        match self.judge(resources, &terms) {
            Ok((verifier, digest, good_until)) => {
                Made { auth: Arc::new(ClientAuth { terms, digest, good_until, verifier: Some(verifier) }), wrong: None }
            }
            Err(wrong) => {
                let auth = ClientAuth { digest: unusable(&terms), terms, good_until: None, verifier: None };
                Made { auth: Arc::new(auth), wrong: Some(wrong) }
            }
        }
    }

    fn judge(&self, resources: &Resources, terms: &ClientTerms) -> Result<Judge, Wrong> {
        let field = match self.authority {
            Holder::Secret(_) => ".caSecretName",
            Holder::ConfigMap(_) => ".caConfigMapName",
        };
        let wrong = |holder: &Holder, field, why: &str| Wrong {
            field,
            reason: reason::INVALID_CERTIFICATE,
            why: format!("{holder}: {why}; {REFUSED}"),
        };
        let authorities = entry(&self.authority, AUTHORITIES, field, resources)?;
        let authorities =
            authorities.ok_or("ca.crt: is missing or empty; it has the certificates of authorities in PEM".to_owned());
        let authorities = authorities.and_then(read_authorities).map_err(|why| wrong(&self.authority, field, &why))?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            let why =
                "ca.crt: holds what is no certificate of X.509 version 3; write the authority's own, and nothing else";
            roots.add(authority.clone()).map_err(|_| wrong(&self.authority, field, why))?;
        }
        let (holder, list_field) = match self.lists.as_ref().and_then(|lists| lists.holder.as_ref()) {
            Some(holder @ Holder::Secret(_)) => (holder, ".revocation.secretName"),
            Some(holder @ Holder::ConfigMap(_)) => (holder, ".revocation.configMapName"),
            None => (&self.authority, field),
        };
        let lists = match (entry(holder, REVOKED, list_field, resources)?, &self.lists) {
            (Some(bytes), _) => read_lists(bytes).map_err(|why| wrong(holder, list_field, &why))?,
            (None, None) => Vec::new(),
            (None, Some(_)) => {
                let why = "ca.crl: is missing or empty; it has revocation lists in PEM, or one in DER";
                return Err(wrong(holder, list_field, why));
            }
        };
        let usual = ListPlan::new(None, RevocationScope::default(), ExpiredList::default());
        let rules = self.lists.as_ref().unwrap_or(&usual);
        let digest = digest(terms, rules, &authorities, &lists);
        let good_until = if rules.may_expire { None } else { lists.iter().filter_map(|list| next_update(list)).min() };

        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).with_crls(lists);
        if !rules.whole_chain {
            builder = builder.only_check_end_entity_revocation();
        }
        if !rules.may_expire {
            builder = builder.enforce_revocation_expiration();
        }
        if !self.required {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(_) => {
                let why = "ca.crl: holds a list that cannot be read; it has to be a whole one of version 2, with the time of the next";
                wrong(holder, list_field, why)
            }
            _ => wrong(&self.authority, field, "ca.crt: has no certificate"),
        })?;
        Ok((verifier, digest, good_until))
    }
}

/// What an object has under a name, if it is more than nothing.
fn entry<'a>(
    holder: &Holder,
    name: &str,
    field: &'static str,
    resources: &'a Resources,
) -> Result<Option<&'a SecretBytes>, Wrong> {
    let (found, unread) = match holder {
        Holder::Secret(key) => (resources.secrets.get(key).map(|secret| secret.entry(name)), UNREAD_SECRET),
        Holder::ConfigMap(key) => (resources.config_maps.get(key).map(|map| map.entry(name)), UNREAD_CONFIG_MAP),
    };
    let why = || format!("{holder} {unread}; until it is, handshakes for hosts that need it are refused");
    let found = found.ok_or_else(|| Wrong { field, reason: reason::REF_NOT_FOUND, why: why() })?;
    Ok(found.filter(|bytes| !bytes.expose().trim_ascii().is_empty()))
}

fn read_authorities(bytes: &SecretBytes) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes.expose()).take(MOST_AUTHORITIES + 1).collect();
    match all {
        Ok(all) if all.is_empty() => {
            Err("ca.crt: has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----".to_owned())
        }
        Ok(all) if all.len() > MOST_AUTHORITIES => Err(format!(
            "ca.crt: has more than {MOST_AUTHORITIES} certificates; leave those of the authorities that sign for your clients"
        )),
        Ok(all) => Ok(all),
        // The reader's own errors repeat lines of the text.
        Err(_) => {
            Err("ca.crt: is not whole PEM, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----".to_owned())
        }
    }
}

fn read_lists(bytes: &SecretBytes) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let bytes = bytes.expose();
    // DER begins with the tag of a sequence, which is a digit in ASCII; and PEM is of nothing else than ASCII.
    if bytes.first() == Some(&0x30) && !bytes.is_ascii() {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).take(MOST_LISTS + 1).collect();
    match all {
        Ok(all) if all.is_empty() => {
            Err("ca.crl: has no list in PEM, which begins with -----BEGIN X509 CRL-----".to_owned())
        }
        Ok(all) if all.len() > MOST_LISTS => {
            Err(format!("ca.crl: has more than {MOST_LISTS} lists; leave the newest of each issuer"))
        }
        Ok(all) => Ok(all),
        Err(_) => Err("ca.crl: is not whole PEM, from -----BEGIN X509 CRL----- to -----END X509 CRL-----".to_owned()),
    }
}

/// Of everything by which certificates are judged, and what endpoints are told of it.
fn digest(
    terms: &ClientTerms,
    lists: &ListPlan,
    authorities: &[CertificateDer<'_>],
    revoked: &[CertificateRevocationListDer<'_>],
) -> [u8; 32] {
    let mut context = begun(terms, "usable");
    context.update(&[u8::from(lists.whole_chain), u8::from(lists.may_expire)]);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(&(authorities.len() as u64).to_be_bytes());
    authorities.iter().for_each(|authority| part(authority));
    revoked.iter().for_each(|list| part(list));
    whole(context)
}

/// Of terms by which nobody can be judged: those of no session and of no other host.
pub(super) fn unusable(terms: &ClientTerms) -> [u8; 32] {
    whole(begun(terms, "unusable"))
}

fn begun(terms: &ClientTerms, state: &str) -> digest::Context {
    let ClientTerms { required, authority, forward: ClientHeaders { certificate, chain, xfcc, ssl_client } } = terms;
    let mut context = digest::Context::new(&SHA256);
    context.update(&[*required, *certificate, *chain, *xfcc, *ssl_client].map(u8::from));
    for text in [state, &**authority] {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    context
}

fn whole(context: digest::Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}
