//! Interfaces, addresses, MTU, and the kernel's switches for them.

use super::facts::{Facts, sysctl};
use super::report::Row;
use crate::config::Config;
use crate::net::environment::LinkState;

/// What WireGuard adds to a packet over IPv4: IP 20, UDP 8, its own header 16 and tag 16 bytes.
const WIREGUARD_OVERHEAD: u32 = 60;
/// The smallest MTU that IPv6 works with (RFC 8200 §5).
const SMALLEST_MTU: u32 = 1280;

pub(super) fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    if let Some(error) = &facts.network_error {
        let remedy = "the edge follows interfaces over rtnetlink; without it nothing works";
        return vec![Row::new("network").fail(error.clone(), remedy)];
    }
    vec![
        public_interface(config, &facts.environment.wan),
        public_addresses(config, facts),
        tunnel(config, &facts.environment.tunnel),
        home(config, facts),
        mtu(facts),
        rp_filter(facts),
        ip_forward(),
    ]
}

fn public_interface(config: &Config, wan: &LinkState) -> Row {
    let row = Row::new("public-interface");
    if wan.name.is_empty() {
        return row.fail(
            "there is no default route, so the public interface is not known",
            "add a default route, or name the interface: EXPOSER_PUBLIC_INTERFACE=eth0",
        );
    }
    let name = &wan.name;
    match wan.ifindex {
        None => row.fail(
            format!("{name} does not exist or is down"),
            format!(
                "ip link set {name} up, or name another: EXPOSER_PUBLIC_INTERFACE (`ip link` lists them)"
            ),
        ),
        Some(index) if !wan.ethernet => row.kernel_path_lacks(
            config.datapath,
            format!("{name} (index {index}) is not Ethernet"),
            "the kernel path needs an Ethernet interface",
        ),
        Some(index) => {
            let gateway = wan.gateway.map_or_else(
                || "no IPv4 gateway".to_owned(),
                |gateway| format!("gateway {gateway}"),
            );
            row.ok(format!("{name} (index {index}), Ethernet, {gateway}"))
        }
    }
}

fn public_addresses(config: &Config, facts: &Facts) -> Row {
    let row = Row::new("public-address");
    let served = &facts.environment.public_addresses;
    let list = |addresses: &[std::net::IpAddr]| {
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if served.is_empty() {
        let remedy = "give the public interface an address, or name the right one: EXPOSER_PUBLIC_INTERFACE";
        return row.fail("no public address is held by this host", remedy);
    }
    let published = config.published_addresses(&facts.environment);
    if published == *served {
        row.ok(list(served))
    } else {
        row.ok(format!(
            "served on {}, published as {}",
            list(served),
            list(&published)
        ))
    }
}

fn tunnel(config: &Config, tunnel: &LinkState) -> Row {
    let row = Row::new("tunnel");
    let name = &config.wireguard_interface;
    let exists = !tunnel.addresses.is_empty() || tunnel.mtu > 0;
    match tunnel.ifindex {
        Some(index) if tunnel.addresses.is_empty() => row.fail(
            format!("{name} (index {index}) has no address"),
            format!("put `Address = 10.0.0.1/24` into /etc/wireguard/{name}.conf; wg-quick down {name}; wg-quick up {name}"),
        ),
        Some(index) if tunnel.ethernet => row.kernel_path_lacks(
            config.datapath,
            format!("{name} (index {index}) is an Ethernet interface, no WireGuard: packets home leave in clear"),
            "name the WireGuard interface: EXPOSER_WIREGUARD_INTERFACE",
        ),
        Some(index) => {
            let addresses: Vec<String> = tunnel.addresses.iter().map(ToString::to_string).collect();
            row.ok(format!("{name} (index {index}), {}", addresses.join(", ")))
        }
        None if exists => row.fail(format!("{name} is down"), format!("ip link set {name} up")),
        None => row.fail(
            format!("{name} does not exist"),
            format!(
                "set up WireGuard in /etc/wireguard/{name}.conf, then: systemctl enable --now wg-quick@{name}; if it has \
                 another name: EXPOSER_WIREGUARD_INTERFACE"
            ),
        ),
    }
}

fn home(config: &Config, facts: &Facts) -> Row {
    let row = Row::new("home-prefixes");
    let name = &config.wireguard_interface;
    if facts.environment.tunnel.ifindex.is_none() {
        return row.ok(format!("not asked: {name} is not up"));
    }
    let prefixes: Vec<String> = facts
        .environment
        .home_prefixes
        .iter()
        .map(ToString::to_string)
        .collect();
    let own = |prefix: &&crate::net::environment::Prefix| {
        !facts
            .environment
            .tunnel
            .addresses
            .iter()
            .any(|address| address.masked() == **prefix)
    };
    let routed = facts.environment.home_prefixes.iter().filter(own).count();
    if routed > 0 {
        return row.ok(format!("{} go into {name}", prefixes.join(", ")));
    }
    row.warn(
        format!("no prefix but the tunnel's own is routed into {name}"),
        format!("add the cluster's Service and node ranges to AllowedIPs in /etc/wireguard/{name}.conf (10.96.0.0/12 is usual)"),
    )
}

fn mtu(facts: &Facts) -> Row {
    let row = Row::new("mtu");
    let (wan, tunnel) = (&facts.environment.wan, &facts.environment.tunnel);
    if wan.ifindex.is_none() || tunnel.ifindex.is_none() {
        return row.ok("not compared: an interface is missing");
    }
    let found = format!("{} {}, {} {}", wan.name, wan.mtu, tunnel.name, tunnel.mtu);
    let best = wan.mtu.saturating_sub(WIREGUARD_OVERHEAD);
    if tunnel.mtu > best {
        return row.warn(
            format!("{found}: full packets of the tunnel are fragmented outside"),
            format!(
                "set MTU = {} in /etc/wireguard/{}.conf on both sides",
                best.saturating_sub(20),
                tunnel.name
            ),
        );
    }
    if tunnel.mtu < SMALLEST_MTU {
        let remedy = format!(
            "IPv6 needs {SMALLEST_MTU}; set a larger MTU in /etc/wireguard/{}.conf",
            tunnel.name
        );
        return row.warn(found, remedy);
    }
    row.ok(found)
}

/// Strict reverse-path filtering (1) on the tunnel drops replies of homes that are not routed into it.
fn rp_filter(facts: &Facts) -> Row {
    let row = Row::new("rp-filter");
    let (wan, tunnel) = (&facts.environment.wan.name, &facts.environment.tunnel.name);
    let value = |name: &str| sysctl(&format!("net.ipv4.conf.{name}.rp_filter"));
    let all = value("all").unwrap_or(0);
    let text = |name: &str| value(name).map_or_else(|| "-".to_owned(), |value| value.to_string());
    let found = format!("all {all}, {wan} {}, {tunnel} {}", text(wan), text(tunnel));
    // The kernel takes the larger of the two (Documentation/networking/ip-sysctl.rst).
    let strict = value(tunnel).is_some_and(|value| value.max(all) == 1);
    if strict && facts.environment.home_prefixes.is_empty() {
        let remedy = format!(
            "route the home prefixes into {tunnel}, or: sysctl -w net.ipv4.conf.{tunnel}.rp_filter=2"
        );
        return row.warn(
            format!("{found}: replies from home may be dropped on the userspace path"),
            remedy,
        );
    }
    row.ok(found)
}

fn ip_forward() -> Row {
    let row = Row::new("ip-forward");
    let value = sysctl("net.ipv4.ip_forward").map_or_else(|| "-".to_owned(), |value| value.to_string());
    row.ok(format!("{value}; not needed by either path"))
}
