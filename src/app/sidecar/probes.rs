//! The probes of a pod's containers, as the injector found them: asked of the app on loopback, as the kubelet would.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::admin::{Asking, Probes, Refused};
use crate::app::Failure;
use crate::args::{AppProbe, GrpcProbe, HttpGet, Scheme, TcpProbe};
use crate::health;
use crate::snapshot::{HealthCheck, HttpProbe, Probe, ProbeHeaders, ProbeMethod, Protocol, Statuses, UpstreamTls};
use crate::translate::unverified_tls;

/// The longest that a probe waits, whatever it asks for: the admin port serves others, too.
const LONGEST: Duration = Duration::from_secs(60);

/// What is asked, and where.
#[derive(Clone)]
struct Asked {
    address: SocketAddr,
    check: HealthCheck,
    tls: Option<Arc<UpstreamTls>>,
}

/// The probes that were given, by name.
///
/// # Errors
/// One that cannot be asked.
pub(super) fn probes(given: &[AppProbe], pod: Option<IpAddr>) -> Result<Probes, Failure> {
    let mut all = HashMap::new();
    for probe in given {
        let asked = asked(probe, pod).map_err(|why| {
            Failure::configuration(format!("--probe {}: {why}; take it out of the pod, or write it right", probe.name))
        })?;
        all.insert(probe.name.clone(), asked);
    }
    Ok(Probes::new(move |name| {
        let Asked { address, check, tls } = all.get(name)?.clone();
        Some(Box::pin(async move {
            let asked = health::ask_once(address, check, Protocol::Http1, tls).await;
            asked.map_err(|unwell| Refused { status: unwell.status, why: unwell.why })
        }) as Asking)
    }))
}

fn asked(probe: &AppProbe, pod: Option<IpAddr>) -> Result<Asked, String> {
    let AppProbe { name: _, http_get, tcp_socket, grpc, timeout_seconds } = probe;
    let (port, what, tls) = match (http_get, tcp_socket, grpc) {
        (Some(get), _, _) => {
            let tls = match get.scheme {
                Scheme::Http => None,
                Scheme::Https => Some(Arc::new(unverified_tls(Protocol::Http1).ok_or("TLS cannot be spoken")?)),
            };
            (get.port, Probe::Http(http(get, pod)?), tls)
        }
        (_, Some(TcpProbe { port, host: _ }), _) => (*port, Probe::Tcp, None),
        (_, _, Some(GrpcProbe { port, service })) => {
            (*port, Probe::Grpc { service: service.clone().unwrap_or_default(), host: None }, None)
        }
        (None, None, None) => return Err("it asks for nothing".to_owned()),
    };
    let timeout = Duration::from_secs(u64::from(*timeout_seconds)).min(LONGEST);
    let check = HealthCheck {
        probe: what,
        port: None,
        interval: timeout,
        unhealthy_interval: timeout,
        timeout,
        healthy_threshold: 1,
        unhealthy_threshold: 1,
        only_with_traffic: false,
        before_use: false,
    };
    Ok(Asked { address: (Ipv4Addr::LOCALHOST, port).into(), check, tls })
}

fn http(get: &HttpGet, pod: Option<IpAddr>) -> Result<HttpProbe, String> {
    let HttpGet { path, port, scheme: _, host, http_headers } = get;
    let mut fields = Vec::new();
    // The Host that the kubelet would send.
    let by_address = pod.map(|ip| SocketAddr::new(ip, *port).to_string());
    let mut host = host.clone().or(by_address);
    for field in http_headers {
        let name: HeaderName =
            field.name.parse().map_err(|_| format!("{:?} is not the name of a header", field.name))?;
        let value = HeaderValue::from_str(&field.value).map_err(|_| format!("the value of {name} cannot be sent"))?;
        if name == http::header::HOST {
            host = Some(field.value.clone());
        } else {
            fields.push((name, value));
        }
    }
    let path = path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    path.parse::<http::Uri>().map_err(|_| format!("{path:?} is not a path"))?;
    Ok(HttpProbe {
        protocol: Some(Protocol::Http1),
        method: ProbeMethod::Get,
        path,
        host,
        headers: ProbeHeaders(fields.into()),
        // Kubernetes: "Any code greater than or equal to 200 and less than 400 indicates success."
        statuses: vec![Statuses(200..=399)],
        body: None,
    })
}
