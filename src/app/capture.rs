//! `floodway capture`: redirects the connections of the network namespace that it runs in, and ends.

use super::{Failure, print};
use crate::args::CaptureArgs;
use crate::capture::{self, Plan};

pub(super) fn run(args: &CaptureArgs) -> Result<(), Failure> {
    let CaptureArgs {
        inbound_listener,
        outbound_listener,
        uid,
        inbound_ports,
        exclude_inbound_ports,
        exclude_outbound_ports,
        exclude_outbound_addresses,
        legacy_iptables,
        dry_run,
    } = args.clone();
    let inbound_ports = inbound_ports.into_iter().filter(|port| !exclude_inbound_ports.contains(port)).collect();
    let plan = Plan {
        inbound_listener,
        outbound_listener,
        uid,
        inbound_ports,
        exclude_outbound_ports,
        exclude_outbound_addresses,
    };
    plan.check().map_err(Failure::configuration)?;
    if dry_run {
        return print(&capture::nft(&plan));
    }
    let how = capture::program(&plan, legacy_iptables).map_err(anyhow::Error::new)?;
    eprintln!("connections are redirected by {how}");
    Ok(())
}
