//! What is written down of an exchange that is over.

use std::time::Duration;

use super::Exchange;
use crate::proxy::error::Error;
use crate::snapshot::ClusterName;
use crate::telemetry::{self, End, Parted};

impl Exchange {
    /// How long it took. What is complete ended when it last moved.
    fn duration(&self) -> Duration {
        match self.end.get() {
            End::Complete | End::Answered => self.last_moved() - self.clocks.started,
            _ => self.clocks.started.elapsed(),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let worker = &self.worker;
        if self.end.get() == End::ClientGone {
            // Whoever carries an exchange drops it when the client leaves; nobody may be left to say why.
            if worker.leaving.cut.get() {
                self.cut(Error::Draining);
            } else if self.reason.get().is_none() {
                self.cut(Error::ClientGone);
            }
        }
        self.attempt.ends();
        if let Some(stream) = self.stream() {
            worker.streams.exit(self, stream);
            if worker.leaving.drain.has_happened() {
                let parted = match self.end.get() {
                    _ if stream.parted.get() => Parted::Polite,
                    End::Drained => Parted::Cut,
                    _ => Parted::Ended,
                };
                worker.recorder.drained(self.kind.get(), parted);
            }
        }
        if self.first_byte.get().is_some() {
            worker.recorder.ends(self.kind.get());
        }
        let cluster = self.attempt.cluster();
        let route = self.route_name();
        worker.recorder.record(&telemetry::Exchange {
            request_id: &self.subject.request_id,
            trace_id: self.subject.trace.id(&self.subject.request_id),
            span_id: self.subject.trace.span(),
            client: self.subject.client,
            protocol: self.subject.protocol,
            method: self.subject.method.as_str(),
            host: &self.subject.host,
            path: &self.subject.path,
            tls: self.subject.tls.as_deref().map(|agreed| telemetry::Tls {
                version: agreed.version,
                cipher: agreed.cipher,
                server_name: agreed.server_name.as_deref(),
                alpn: agreed.alpn,
                client_subject: agreed.client.as_ref().and_then(|client| client.identity.subject.as_deref()),
                client_fingerprint: agreed.client.as_ref().map(|client| &*client.identity.fingerprint),
            }),
            route: route.map(|name| &*name.object),
            rule: route.map(|name| &*name.rule),
            upstream: cluster.as_ref().map(ClusterName::as_str),
            endpoint: self.attempt.endpoint(),
            status: self.status.get().as_u16(),
            reason: self.reason.get(),
            kind: self.kind.get(),
            end: self.end.get(),
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
            events: self.stream().and_then(|stream| stream.events.get()),
            connect: self.connect.get(),
            first_byte: self.first_byte.get(),
            duration: self.duration(),
            attempts: self.attempt.number.get(),
        });
    }
}
