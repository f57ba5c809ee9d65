//! What the first packet of a client's next connection would meet, in the order of the programs (`wan_ingress`), and
//! after them in the host's own stack. A function of values.

use std::net::{IpAddr, Ipv4Addr};

use exposer_common::flow::{Bucket, Control};
use exposer_common::link::NetKind;
use exposer_common::model::Protocol;
use exposer_common::names::FLOW_SLOTS;
use exposer_common::net::source::is_global_unicast;
use exposer_common::service::{PortMode, ServiceEntry};
use exposer_common::verdict::Reason;
use serde::Serialize;

/// Everything that the way of the packet depends on.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub client: IpAddr,
    /// What `NETS` says of the client.
    pub net: Option<NetKind>,
    pub protocol: Protocol,
    /// Whether `wan_ingress` stands at the hook; none where that is not known.
    pub attached: Option<bool>,
    /// The port's cell in `PORTS`; none without maps.
    pub mode: Option<PortMode>,
    pub service: Option<ServiceEntry>,
    /// Kernel-path flows of this client to this port.
    pub flows: usize,
    /// Connections of this client to this port that the host's own stack holds.
    pub sockets: usize,
    /// UDP sessions of this client to this port that the programs leave to userspace.
    pub handed: usize,
    /// Whether the heartbeat is fresh, and the words for it.
    pub fresh: bool,
    pub heartbeat: String,
    pub limits: Limits,
    /// SNAT ports in use toward the same backend.
    pub snat_used: usize,
    /// Entries of the flow table.
    pub table_used: usize,
    /// Whether the egress interface is there.
    pub tunnel_up: bool,
    pub stack: Stack,
}

/// The buckets that a new flow takes a token from, and how they fill.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// `CLOCK_MONOTONIC_COARSE` in nanoseconds.
    pub now: u64,
    pub control: Control,
    pub source: Bucket,
    pub service: Bucket,
    pub overall: Bucket,
}

/// What waits behind the hook.
#[derive(Clone, Debug, Default)]
pub(super) struct Stack {
    /// Largest of `rp_filter` of all interfaces and of the public one: 1 is strict.
    pub rp_filter: Option<u32>,
    /// The nat rule that takes the port.
    pub redirected: Option<String>,
    /// The firewall rule that blocks it.
    pub blocked: Option<String>,
    /// Who listens, and whether that is the daemon.
    pub listener: Option<(String, bool)>,
}

/// One check on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub check: &'static str,
    pub found: String,
    /// The verdict's reason, where this check gave the verdict.
    pub reason: Option<&'static str>,
}

/// Who serves the packet in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    Kernel,
    Userspace,
    /// Another program of this host, or a nat rule.
    Host,
    Nobody,
}

/// The whole way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Journey {
    pub client: IpAddr,
    pub steps: Vec<Step>,
    pub end: End,
}

/// How the programs' part ends.
enum Verdict {
    Redirect,
    Drop,
    Pass,
}

#[derive(Default)]
struct Way(Vec<Step>);

impl Way {
    fn note(&mut self, check: &'static str, found: impl Into<String>) {
        self.0.push(Step {
            check,
            found: found.into(),
            reason: None,
        });
    }

    fn end(&mut self, check: &'static str, found: impl Into<String>, reason: Reason) {
        self.0.push(Step {
            check,
            found: found.into(),
            reason: Some(reason.as_str()),
        });
    }
}

/// Follows the packet.
pub(super) fn follow(packet: &Packet) -> Journey {
    let mut way = Way::default();
    let end = match programs(packet, &mut way) {
        Verdict::Redirect => End::Kernel,
        Verdict::Drop => End::Nobody,
        Verdict::Pass => stack(packet, &mut way),
    };
    Journey {
        client: packet.client,
        steps: way.0,
        end,
    }
}

fn programs(packet: &Packet, way: &mut Way) -> Verdict {
    match packet.attached {
        Some(true) => way.note("program", "wan_ingress stands at the public interface's ingress"),
        Some(false) => {
            way.note(
                "program",
                "wan_ingress is not attached: the packet goes on to the host's stack",
            );
            return Verdict::Pass;
        }
        None => way.note("program", "whether wan_ingress is attached could not be asked"),
    }
    let IpAddr::V4(client) = packet.client else {
        way.end("address", "IPv6 is for the userspace path", Reason::NotIpv4);
        return Verdict::Pass;
    };
    match packet.mode {
        Some(PortMode::Masquerade) => way.note("port table", "the port is managed"),
        Some(PortMode::Userspace) => {
            let found = "the port is for the userspace path alone";
            way.end("port table", found, Reason::ServiceUserspace);
            return Verdict::Pass;
        }
        Some(PortMode::Unmanaged | PortMode::Transparent) => {
            way.end("port table", "the port is not in it", Reason::Unmanaged);
            return Verdict::Pass;
        }
        None => {
            way.note("port table", "there are no pinned maps: the kernel path is off");
            return Verdict::Pass;
        }
    }
    if packet.flows > 0 {
        let found = format!(
            "{} connections of this client are on the kernel path and stay there ({}); what follows is for another one",
            packet.flows,
            Reason::ForwardHit.as_str()
        );
        way.note("existing flow", found);
    } else {
        way.note("existing flow", "none: a new one is to be made");
    }
    make(packet, client, way)
}

/// A miss: may a flow be made?
fn make(packet: &Packet, client: Ipv4Addr, way: &mut Way) -> Verdict {
    let Some(service) = packet.service else {
        let found = "no target for new connections on this address: the port closes, or has another address";
        way.end("service", found, Reason::NoService);
        return Verdict::Pass;
    };
    let backend = format!("{}:{}", Ipv4Addr::from(service.backend), service.backend_port);
    way.note("service", format!("goes to {backend}"));
    if let Some(found) = martian(client, packet.net) {
        way.end("source", found, Reason::SourceMartian);
        return Verdict::Pass;
    }
    way.note(
        "source",
        "a public address, and neither of home nor of this host itself",
    );
    if packet.sockets > 0 {
        let found = format!(
            "the stack holds {} connections of this client on this port and keeps them ({}); what follows is for another one",
            packet.sockets,
            Reason::OwnedBySocket.as_str()
        );
        way.note("live socket", found);
    } else {
        way.note("live socket", "none");
    }
    if packet.protocol == Protocol::Udp && packet.handed > 0 {
        let found = format!(
            "the userspace path serves {} sessions of this client and keeps them ({}); what follows is for another one",
            packet.handed,
            Reason::HandedOver.as_str()
        );
        way.note("hand-over", found);
    }
    if !packet.fresh {
        way.end("heartbeat", packet.heartbeat.clone(), Reason::ControlStale);
        return Verdict::Pass;
    }
    way.note("heartbeat", packet.heartbeat.clone());
    if let Some((found, reason)) = limited(packet.limits, packet.protocol) {
        way.end("limits", found, reason);
        return match reason.verdict() {
            exposer_common::verdict::Verdict::Drop => Verdict::Drop,
            _ => Verdict::Pass,
        };
    }
    way.note(
        "limits",
        "the client, the service and the whole may have another flow",
    );
    room(packet, &service, way)
}

/// Why the programs would not believe the source.
fn martian(client: Ipv4Addr, net: Option<NetKind>) -> Option<&'static str> {
    match net {
        Some(NetKind::Home) => {
            Some("inside a home prefix or tunnel route: nobody on the internet may speak as home")
        }
        Some(NetKind::Own) => Some("one of this host's own addresses"),
        _ if !is_global_unicast(client.octets()) => {
            Some("private or otherwise special-purpose: not an address of the internet")
        }
        _ => None,
    }
}

/// Which limit is spent; the buckets are copies, so nothing is taken.
fn limited(mut limits: Limits, protocol: Protocol) -> Option<(&'static str, Reason)> {
    let (source, unreplied) = match protocol {
        Protocol::Tcp => (Reason::SourceLimited, Reason::UnrepliedBudget),
        Protocol::Udp => (Reason::UdpLimited, Reason::UdpLimited),
    };
    let Control {
        per_source,
        per_service,
        overall,
        ..
    } = limits.control;
    if !limits.source.take(per_source, limits.now) {
        return Some(("this client opens too many connections", source));
    }
    if !limits.service.take(per_service, limits.now) {
        return Some(("too many connections of this Service are unanswered", unreplied));
    }
    if !limits.overall.take(overall, limits.now) {
        return Some(("too many connections of all Services are unanswered", unreplied));
    }
    None
}

fn room(packet: &Packet, service: &ServiceEntry, way: &mut Way) -> Verdict {
    let (used, all) = (packet.snat_used, usize::from(service.snat_count));
    let snat = Ipv4Addr::from(service.snat_address);
    let found = format!("{used} of {all} source ports of {snat} are in use toward this target");
    if used >= all {
        way.end("source port", found, Reason::SnatExhausted);
        return Verdict::Pass;
    }
    way.note("source port", found);
    let found = format!("{} of {FLOW_SLOTS} entries are in use", packet.table_used);
    if u32::try_from(packet.table_used).map_or(true, |used| used >= FLOW_SLOTS) {
        way.end("flow table", found, Reason::FlowsFull);
        return Verdict::Pass;
    }
    way.note("flow table", found);
    if !packet.tunnel_up {
        let found = "the tunnel interface is gone: dropped, so that nothing leaves in clear";
        way.end("tunnel", found, Reason::TunnelDown);
        return Verdict::Drop;
    }
    let found = "a flow is made, and the packet leaves by the tunnel";
    way.end("tunnel", found, Reason::ForwardNew);
    Verdict::Redirect
}

/// The host's own stack, and the userspace path behind it.
fn stack(packet: &Packet, way: &mut Way) -> End {
    let Stack {
        rp_filter,
        redirected,
        blocked,
        listener,
    } = &packet.stack;
    match packet.net {
        Some(NetKind::Own) => {
            way.note(
                "stack",
                "the host refuses its own address as a source from outside",
            );
            return End::Nobody;
        }
        Some(NetKind::Home) if *rp_filter == Some(1) => {
            way.note(
                "stack",
                "rp_filter is strict: home is behind the tunnel, so it is refused here",
            );
            return End::Nobody;
        }
        Some(NetKind::Home) => way.note(
            "stack",
            "rp_filter is not strict: let in, but the answers go into the tunnel",
        ),
        _ => {}
    }
    if let Some(rule) = redirected {
        way.note("nat", format!("sent elsewhere by {rule}"));
        return End::Host;
    }
    if let Some(rule) = blocked {
        way.note("firewall", format!("blocked by {rule}"));
        return End::Nobody;
    }
    way.note(
        "firewall",
        "no rule in the way, as far as the rules could be read",
    );
    match listener {
        Some((who, true)) => {
            way.note(
                "socket",
                format!("{who} listens: the userspace path proxies it into the tunnel"),
            );
            End::Userspace
        }
        Some((who, false)) => {
            way.note("socket", format!("{who} listens: not Exposer's"));
            End::Host
        }
        None => {
            way.note("socket", "nobody listens: the host refuses it");
            End::Nobody
        }
    }
}

#[cfg(test)]
mod tests;
