//! What policies make of the client's answer, whoever gives it: told before there is an answer, done once there is
//! one. Edits that a rule asks for are made before.

use std::sync::Arc;

use super::Exchange;
use crate::proxy::fields::Fields;
use crate::proxy::policy;
use crate::snapshot::{Compression, ErrorPage, Headers};

/// Changes of the fields of an answer, in the order in which they are made.
#[derive(Debug, Default)]
pub(super) struct Adorned {
    /// What failures look like.
    pages: Option<Arc<[ErrorPage]>>,
    /// How the content is compressed, and whether the client takes that.
    compression: Option<(Arc<Compression>, bool)>,
    /// What a policy says of all answers.
    headers: Option<Arc<Headers>>,
    /// Fields whose names begin like this are taken out.
    strip: Option<&'static str>,
    /// Replace what the answer has under their names.
    set: Fields,
    /// Come beside what the answer has.
    beside: Fields,
    /// Comes beside what the answer says that it depends on.
    vary: Option<&'static str>,
}

impl Exchange {
    /// The client's answer gets a field, in place of what it has under that name; also one that Floodway itself gives because the
    /// request may not pass.
    pub(in crate::proxy) fn adorn(&self, name: &str, value: &[u8]) {
        self.adorned.borrow_mut().get_or_insert_default().set.add(name, value);
    }

    /// The same, in place also of what it got under that name from here before.
    pub(in crate::proxy) fn adorn_once(&self, name: &str, value: &[u8]) {
        self.adorned.borrow_mut().get_or_insert_default().set.set(name, value);
    }

    /// Failures look like this.
    pub(in crate::proxy) fn shows(&self, pages: &Arc<[ErrorPage]>) {
        self.adorned.borrow_mut().get_or_insert_default().pages = Some(Arc::clone(pages));
    }

    /// What failures look like, if a policy says so.
    pub(in crate::proxy) fn error_pages(&self) -> Option<Arc<[ErrorPage]>> {
        self.adorned.borrow().as_ref()?.pages.clone()
    }

    /// The content of the client's answer may be compressed, if the client `takes` that.
    pub(in crate::proxy) fn compresses(&self, compression: &Arc<Compression>, takes: bool) {
        self.adorned.borrow_mut().get_or_insert_default().compression = Some((Arc::clone(compression), takes));
    }

    /// How the content of the client's answer is compressed, if a policy says so, and whether the client takes that.
    pub(in crate::proxy) fn compression(&self) -> Option<(Arc<Compression>, bool)> {
        self.adorned.borrow().as_ref()?.compression.clone()
    }

    /// The client's answer loses and gets what a policy says of all answers.
    pub(in crate::proxy) fn sanitise(&self, headers: &Arc<Headers>) {
        self.adorned.borrow_mut().get_or_insert_default().headers = Some(Arc::clone(headers));
    }

    /// The client's answer gets a field beside those that it has under that name.
    pub(in crate::proxy) fn adorn_beside(&self, name: &str, value: &[u8]) {
        self.adorned.borrow_mut().get_or_insert_default().beside.add(name, value);
    }

    /// The client's answer gets no field whose name begins like this, but for those that adorn it.
    pub(in crate::proxy) fn strip(&self, family: &'static str) {
        self.adorned.borrow_mut().get_or_insert_default().strip = Some(family);
    }

    /// The client's answer depends on these fields of its request, as caches are told (RFC 9110 12.5.5), in place of others of which
    /// that was said before.
    pub(in crate::proxy) fn vary(&self, names: &'static str) {
        self.adorned.borrow_mut().get_or_insert_default().vary = Some(names);
    }

    /// Makes these changes.
    pub(in crate::proxy) fn dress(&self, answer: &mut Fields) {
        let Some(adorned) = self.adorned.take() else { return };
        let Adorned { pages: _, compression: _, headers, strip, set, beside, vary } = *adorned;
        if let Some(headers) = headers {
            policy::headers::sanitise(&headers, answer);
        }
        if let Some(family) = strip {
            answer.retain(|_, name, _| !name.starts_with(family.as_bytes()));
        }
        set.iter()
            .filter_map(|(name, _)| std::str::from_utf8(name).ok())
            .for_each(|name| answer.remove_named(name.as_bytes()));
        for (name, value) in set.iter().chain(beside.iter()) {
            answer.add(std::str::from_utf8(name).unwrap_or_default(), value);
        }
        if let Some(names) = vary {
            answer.add("vary", names.as_bytes());
        }
    }
}
