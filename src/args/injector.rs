//! Flags of what puts the sidecar into pods: `floodway injector`, and `floodway capture`, which it has run in them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as Flags;
use ipnet::IpNet;

use crate::settings::LogFormat;
use crate::snapshot::duration;

/// `floodway injector`
#[derive(Debug, Flags)]
pub struct InjectorArgs {
    /// What is put into pods: a file (YAML) with `image` at least
    #[arg(long, value_name = "FILE")]
    pub template: PathBuf,
    /// Address of the webhook, at which API servers ask over TLS
    #[arg(long, value_name = "ADDR", value_parser = super::listening, default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Address of /livez, /readyz, /metrics and /log
    #[arg(long, value_name = "ADDR", value_parser = super::listening, default_value = "0.0.0.0:9901")]
    pub admin: SocketAddr,
    /// The Service that leads to the webhook, in the namespace that this runs in (POD_NAMESPACE); the certificate is for its name
    #[arg(long, value_name = "NAME", default_value = "floodway-injector")]
    pub service: String,
    /// The Secret that all replicas share the certificate by; it is made if it is not there
    #[arg(long, value_name = "NAME", default_value = "floodway-injector-certificate")]
    pub secret: String,
    /// The MutatingWebhookConfiguration that tells API servers of the webhook
    #[arg(long, value_name = "NAME", default_value = "floodway-injector")]
    pub configuration: String,
    /// The webhook in it
    #[arg(long, value_name = "NAME", default_value = "inject.sidecar.floodway.dev")]
    pub webhook: String,
    /// How long a certificate is good; a new one is made when a third of it is left
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "2160h")]
    pub certificate_lifetime: Duration,
    /// How long to go on answering after SIGTERM, not ready, while Services notice
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub drain_delay: Duration,
    /// What the program's log tells: off, error, warn, info, debug, trace, and per module: info,floodway::injector=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,
    /// Format of the program's log
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

/// `floodway capture`
#[derive(Clone, Debug, Flags)]
pub struct CaptureArgs {
    /// The port that connections to the ports below are redirected to
    #[arg(long, value_name = "PORT", value_parser = port, default_value = "15106")]
    pub inbound_listener: u16,
    /// The port that outgoing connections are redirected to
    #[arg(long, value_name = "PORT", value_parser = port, default_value = "15101")]
    pub outbound_listener: u16,
    /// The user whose outgoing connections are left alone: the sidecar's
    #[arg(long, value_name = "UID", default_value = "15151")]
    pub uid: u32,
    /// A port whose incoming connections are redirected; may be repeated
    #[arg(long = "inbound-port", value_name = "PORT", value_parser = port)]
    pub inbound_ports: Vec<u16>,
    /// A port whose incoming connections are left alone, although it is named above; may be repeated
    #[arg(long = "exclude-inbound-port", value_name = "PORT", value_parser = port)]
    pub exclude_inbound_ports: Vec<u16>,
    /// A port, wherever it is, outgoing connections to which are left alone; may be repeated
    #[arg(long = "exclude-outbound-port", value_name = "PORT", value_parser = port)]
    pub exclude_outbound_ports: Vec<u16>,
    /// Addresses outgoing connections to which are left alone; may be repeated
    #[arg(long = "exclude-outbound-address", value_name = "CIDR", value_parser = block)]
    pub exclude_outbound_addresses: Vec<IpNet>,
    /// By iptables, also where the kernel has nf_tables
    #[arg(long)]
    pub legacy_iptables: bool,
    /// Change nothing, and print the rules as `nft` writes them
    #[arg(long)]
    pub dry_run: bool,
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("write a port: a number from 1 to 65535".to_owned()),
    }
}

fn block(text: &str) -> Result<IpNet, String> {
    let block = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    block.map_err(|_| "write a block of addresses, for example 10.0.0.0/8".to_owned())
}
