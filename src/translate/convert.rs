//! From Kubernetes objects to what translation reads of them. Whoever reads objects (`source`) calls this at the edge,
//! so that thousands of them stay small. What they mean together is the rest of `translate`'s to say.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::resources::{
    AddressSlice, EndpointPlace, Key, Service, ServiceKind, ServicePort, SliceEndpoint, SlicePort, TargetPort,
};

/// Why an object cannot be read: a sentence that begins with the path of the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// The label by which a slice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Service {
    /// What translation reads of a Service. Ports that are not TCP are left out.
    ///
    /// # Errors
    /// [`Malformed`] for ports out of range, and for an `ExternalName` without name.
    pub fn from_object(service: &core::Service) -> Result<Self, Malformed> {
        let Some(spec) = &service.spec else {
            return Ok(Service { kind: ServiceKind::Endpoints, ports: Box::default(), addresses: Box::default() });
        };
        let kind = match (spec.type_.as_deref(), spec.external_name.as_deref().map(|name| name.trim_end_matches('.'))) {
            (Some("ExternalName"), None | Some("")) => {
                return Err(Malformed("spec.externalName: a Service of type ExternalName needs a name".to_owned()));
            }
            (Some("ExternalName"), Some(name)) => ServiceKind::External(name.to_ascii_lowercase().into()),
            _ => ServiceKind::Endpoints,
        };
        let ports = spec.ports.iter().flatten().enumerate().filter(|(_, port)| is_tcp(port.protocol.as_deref()));
        let ports =
            ports.map(|(at, port)| service_port(port, &format!("spec.ports[{at}]"))).collect::<Result<_, _>>()?;
        let single = || spec.cluster_ip.iter();
        let addresses = spec
            .cluster_ips
            .as_ref()
            .filter(|all| !all.is_empty())
            .map_or_else(|| single().collect(), |all| all.iter().collect::<Vec<_>>());
        // `None` is what headless Services have.
        let addresses = addresses.into_iter().filter_map(|address| address.parse().ok()).collect();
        Ok(Service { kind, ports, addresses })
    }
}

fn service_port(port: &core::ServicePort, path: &str) -> Result<ServicePort, Malformed> {
    let number = port_number(port.port, || format!("{path}.port"))?;
    Ok(ServicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        port: number,
        target: match &port.target_port {
            None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => {
                TargetPort::Number(port_number(*target, || format!("{path}.targetPort"))?)
            }
            Some(IntOrString::String(name)) => TargetPort::Name(name.as_str().into()),
        },
        app_protocol: port.app_protocol.as_deref().map(Arc::from),
    })
}

impl AddressSlice {
    /// The Service whose endpoints the slice holds; `None` for a slice that belongs to none.
    pub fn service_of(slice: &discovery::EndpointSlice) -> Option<Key> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
        Some(Key::new(slice.metadata.namespace.as_deref().unwrap_or("default"), name.as_str()))
    }

    /// What translation reads of an EndpointSlice. Ports that are not TCP are left out.
    ///
    /// # Errors
    /// [`Malformed`] for a slice of names instead of addresses, an address that is not of the slice's family, and a port
    /// out of range.
    pub fn from_object(slice: &discovery::EndpointSlice) -> Result<Self, Malformed> {
        let family = match slice.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => return Err(Malformed(format!("addressType: {other:?} is not supported, only IPv4 and IPv6 are"))),
        };
        let mut places = Places::default();
        let endpoints = slice.endpoints.iter().enumerate();
        let endpoints = endpoints.map(|(at, endpoint)| slice_endpoint(endpoint, at, family, &mut places));
        let ports = slice.ports.iter().flatten().enumerate().filter(|(_, port)| is_tcp(port.protocol.as_deref()));
        let ports = ports.map(|(at, port)| {
            Ok(SlicePort {
                name: port.name.as_deref().unwrap_or_default().into(),
                port: port.port.map(|number| port_number(number, || format!("ports[{at}].port"))).transpose()?,
                app_protocol: port.app_protocol.as_deref().map(Arc::from),
            })
        });
        Ok(AddressSlice { ports: ports.collect::<Result<_, _>>()?, endpoints: endpoints.collect::<Result<_, _>>()? })
    }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// The places of one slice's endpoints, so that those which are in the same share it.
#[derive(Default)]
struct Places(Vec<Arc<EndpointPlace>>);

impl Places {
    fn of(&mut self, endpoint: &discovery::Endpoint) -> Option<Arc<EndpointPlace>> {
        let hints = endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten());
        let hints = hints.map(|hint| hint.name.as_str().into()).collect();
        let place = EndpointPlace { zone: endpoint.zone.as_deref().map(Arc::from), hints };
        if place == EndpointPlace::default() {
            return None;
        }
        let known = self.0.iter().find(|known| ***known == place).cloned();
        Some(known.unwrap_or_else(|| {
            let new = Arc::new(place);
            self.0.push(Arc::clone(&new));
            new
        }))
    }
}

fn slice_endpoint(
    endpoint: &discovery::Endpoint,
    at: usize,
    family: Family,
    places: &mut Places,
) -> Result<SliceEndpoint, Malformed> {
    // discovery/v1 Endpoint: "No semantics are defined for additional addresses beyond the first".
    let Some(text) = endpoint.addresses.first() else {
        return Err(Malformed(format!("endpoints[{at}].addresses: an endpoint needs an address")));
    };
    let path = || format!("endpoints[{at}].addresses[0]");
    let address: IpAddr = text.parse().map_err(|_| Malformed(format!("{}: {text:?} is not an IP address", path())))?;
    match (family, address) {
        (Family::V4, IpAddr::V4(_)) | (Family::V6, IpAddr::V6(_)) => {}
        (Family::V4, _) => {
            return Err(Malformed(format!("{}: {text} is not an IPv4 address as addressType says", path())));
        }
        (Family::V6, _) => {
            return Err(Malformed(format!("{}: {text} is not an IPv6 address as addressType says", path())));
        }
    }
    let conditions = endpoint.conditions.as_ref();
    // EndpointConditions: for `ready` and for `serving` "a nil value should be interpreted as "true"".
    Ok(SliceEndpoint {
        address,
        ready: conditions.and_then(|known| known.ready).unwrap_or(true),
        serving: conditions.and_then(|known| known.serving).unwrap_or(true),
        terminating: conditions.and_then(|known| known.terminating).unwrap_or(false),
        place: places.of(endpoint),
    })
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn port_number(number: i32, path: impl Fn() -> String) -> Result<u16, Malformed> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Malformed(format!("{}: {number} is not a port, which is a number from 1 to 65535", path())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn service(spec: serde_json::Value) -> Result<Service, Malformed> {
        Service::from_object(&serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap())
    }

    fn slice(slice: serde_json::Value) -> Result<AddressSlice, Malformed> {
        AddressSlice::from_object(&serde_json::from_value(slice).unwrap())
    }

    #[test]
    fn services_keep_what_translation_reads() {
        let ports = json!([
            {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "kubernetes.io/h2c"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "web", "port": 81, "targetPort": "web"},
            {"name": "same", "port": 82, "protocol": "TCP"},
        ]);
        let read = service(json!({"ports": ports})).unwrap();
        assert_eq!(read.kind, ServiceKind::Endpoints);
        let ports: Vec<_> = read.ports.iter().map(|port| (&*port.name, port.port, &port.target)).collect();
        let named = TargetPort::Name("web".into());
        assert_eq!(
            ports,
            [("http", 80, &TargetPort::Number(8080)), ("web", 81, &named), ("same", 82, &TargetPort::Number(82))]
        );
        assert_eq!(read.ports[0].app_protocol.as_deref(), Some("kubernetes.io/h2c"));
        let external = service(json!({"type": "ExternalName", "externalName": "API.example.com."})).unwrap();
        assert_eq!(external.kind, ServiceKind::External("api.example.com".into()));
    }

    #[test]
    fn malformed_services_are_explained() {
        let message = |spec| service(spec).unwrap_err().0;
        assert_eq!(
            message(json!({"ports": [{"port": 70000}]})),
            "spec.ports[0].port: 70000 is not a port, which is a number from 1 to 65535"
        );
        assert_eq!(
            message(json!({"type": "ExternalName"})),
            "spec.externalName: a Service of type ExternalName needs a name"
        );
    }

    #[test]
    fn slices_keep_what_translation_reads() {
        let read = slice(json!({
            "metadata": {"name": "s-1"},
            "addressType": "IPv6",
            "ports": [{"name": "http", "port": 8080}, {"name": "any"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [
                {"addresses": ["fd00::1"], "zone": "a", "hints": {"forZones": [{"name": "a"}, {"name": "b"}]}},
                {"addresses": ["fd00::2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            ],
        }))
        .unwrap();
        assert_eq!(read.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [Some(8080), None]);
        assert_eq!(read.endpoints[0].zone(), Some("a"));
        assert_eq!(*read.endpoints[0].hints(), ["a", "b"].map(Arc::<str>::from));
        assert_eq!(read.endpoints[1].place, None);
        assert!(read.endpoints[0].ready && read.endpoints[0].serving && !read.endpoints[0].terminating);
        assert!(!read.endpoints[1].ready && read.endpoints[1].serving && read.endpoints[1].terminating);
    }

    #[test]
    fn slices_say_whose_they_are() {
        let of = |metadata: serde_json::Value| {
            let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []});
            AddressSlice::service_of(&serde_json::from_value(slice).unwrap())
        };
        let labels = json!({"kubernetes.io/service-name": "llm"});
        assert_eq!(of(json!({"namespace": "shop", "labels": labels})), Some(Key::new("shop", "llm")));
        assert_eq!(of(json!({"namespace": "shop"})), None);
    }

    #[test]
    fn malformed_slices_are_explained() {
        let message = |kind: &str, address: &str| {
            let endpoints = json!([{"addresses": ["10.0.0.1"]}, {"addresses": [address]}]);
            slice(json!({"metadata": {}, "addressType": kind, "endpoints": endpoints})).unwrap_err().0
        };
        assert_eq!(message("IPv4", "here"), "endpoints[1].addresses[0]: \"here\" is not an IP address");
        assert_eq!(
            message("IPv4", "fd00::1"),
            "endpoints[1].addresses[0]: fd00::1 is not an IPv4 address as addressType says"
        );
        assert_eq!(message("FQDN", "a.b"), "addressType: \"FQDN\" is not supported, only IPv4 and IPv6 are");
    }
}
