//! What was listed → what the datapaths are told.

use super::*;

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix {
        address: address.parse().unwrap(),
        length: length.parse().unwrap(),
    }
}

fn link(index: u32, name: &str, mtu: u32, ethernet: bool) -> Link {
    Link {
        index,
        name: name.to_owned(),
        up: true,
        mtu,
        ethernet,
    }
}

fn address(index: u32, text: &str) -> Address {
    Address {
        index,
        prefix: prefix(text),
        global: true,
        lasting: true,
    }
}

fn route(index: u32, text: &str, gateway: Option<&str>) -> Route {
    Route {
        index,
        destination: prefix(text),
        gateway: gateway.map(|text| text.parse().unwrap()),
        table: MAIN,
        metric: 0,
    }
}

fn settings() -> LinkSettings {
    LinkSettings {
        tunnel: "wg0".into(),
        ..LinkSettings::default()
    }
}

/// A small VPS: eth0 with both families, wg0 with a cluster behind it, Docker's bridge.
fn vps() -> Dump {
    Dump {
        links: vec![
            link(1, "lo", 65_536, false),
            link(2, "eth0", 1500, true),
            link(3, "wg0", 1420, false),
            link(4, "docker0", 1500, true),
        ],
        addresses: vec![
            Address {
                global: false,
                ..address(1, "127.0.0.1/8")
            },
            address(2, "203.0.113.7/24"),
            address(2, "2001:db8::7/64"),
            Address {
                global: false,
                ..address(2, "fe80::1/64")
            },
            Address {
                lasting: false,
                ..address(2, "2001:db8::beef/64")
            },
            address(3, "10.0.0.1/24"),
            address(3, "10.0.0.9/24"),
            Address {
                global: false,
                ..address(3, "fe80::2/64")
            },
            address(4, "172.17.0.1/16"),
        ],
        routes: vec![
            route(2, "0.0.0.0/0", Some("203.0.113.1")),
            route(2, "::/0", None),
            route(3, "10.0.0.0/24", None),
            route(3, "10.96.0.0/12", None),
            route(3, "fd00:96::/112", None),
            route(3, "fe80::/64", None),
            route(3, "ff00::/8", None),
            Route {
                table: 51_820,
                ..route(3, "0.0.0.0/0", None)
            },
            Route {
                table: 51_820,
                ..route(3, "192.168.7.0/24", None)
            },
            route(4, "172.17.0.0/16", None),
        ],
    }
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn a_small_vps() {
    let found = environment(&settings(), &vps());
    assert_eq!(
        (found.wan.name.as_str(), found.wan.ifindex, found.wan.mtu),
        ("eth0", Some(2), 1500)
    );
    assert!(found.wan.ethernet && !found.tunnel.ethernet);
    assert_eq!(found.wan.gateway, Some("203.0.113.1".parse().unwrap()));
    assert_eq!(
        (found.tunnel.ifindex, found.tunnel.mtu, found.tunnel.gateway),
        (Some(3), 1420, None)
    );
    assert_eq!(texts(&found.public_addresses), ["203.0.113.7", "2001:db8::7"]);
    assert_eq!(found.snat_address, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(
        texts(&found.home_prefixes),
        ["10.0.0.0/24", "10.96.0.0/12", "192.168.7.0/24", "fd00:96::/112"]
    );
    assert_eq!(found.own_addresses.len(), 9);
}

#[test]
fn the_tunnel_is_not_there_yet() {
    let mut dump = vps();
    dump.links.retain(|link| link.name != "wg0");
    dump.addresses.retain(|address| address.index != 3);
    dump.routes.retain(|route| route.index != 3);
    let found = environment(&settings(), &dump);
    assert_eq!(
        found.tunnel,
        LinkState {
            name: "wg0".into(),
            ..LinkState::default()
        }
    );
    assert_eq!((found.snat_address, found.home_prefixes), (None, vec![]));
    assert_eq!(found.wan.ifindex, Some(2));
}

#[test]
fn a_link_that_is_down_has_no_index() {
    let mut dump = vps();
    dump.links.iter_mut().for_each(|link| link.up = false);
    let found = environment(&settings(), &dump);
    assert_eq!((found.wan.ifindex, found.tunnel.ifindex), (None, None));
    assert_eq!(found.wan.name, "eth0");
}

#[test]
fn a_default_route_through_the_tunnel_is_neither_wan_nor_home() {
    let mut dump = vps();
    for half in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"] {
        dump.routes.insert(0, route(3, half, None));
    }
    let found = environment(&settings(), &dump);
    assert_eq!(found.wan.name, "eth0");
    assert!(!found.home_prefixes.iter().any(|prefix| prefix.length < 2));
}

#[test]
fn the_smallest_metric_wins() {
    let mut dump = vps();
    dump.routes.insert(
        0,
        Route {
            metric: 100,
            ..route(4, "0.0.0.0/0", Some("172.17.0.9"))
        },
    );
    let found = environment(&settings(), &dump);
    assert_eq!(
        (found.wan.name.as_str(), found.wan.gateway),
        ("eth0", Some("203.0.113.1".parse().unwrap()))
    );
}

#[test]
fn no_default_route_and_nothing_given() {
    let mut dump = vps();
    dump.routes.retain(|route| route.destination.length > 0);
    let found = environment(&settings(), &dump);
    assert_eq!(found.wan, LinkState::default());
    assert!(found.public_addresses.is_empty());
    let given = LinkSettings {
        public_interface: Some("eth0".into()),
        ..settings()
    };
    assert_eq!(environment(&given, &dump).wan.ifindex, Some(2));
}

#[test]
fn given_addresses_are_served_where_the_host_has_them() {
    let given = |list: &[&str]| LinkSettings {
        public_addresses: list.iter().map(|text| text.parse().unwrap()).collect(),
        snat_address: Some("10.0.0.9".parse().unwrap()),
        ..settings()
    };
    let found = environment(&given(&["2001:db8::7", "198.51.100.1"]), &vps());
    assert_eq!(texts(&found.public_addresses), ["2001:db8::7"]);
    assert_eq!(found.snat_address, Some("10.0.0.9".parse().unwrap()));
    // A cloud with 1:1 NAT: the given address is nowhere on the host.
    let found = environment(&given(&["198.51.100.1"]), &vps());
    assert_eq!(texts(&found.public_addresses), ["203.0.113.7", "2001:db8::7"]);
}

#[test]
fn an_empty_host() {
    let found = environment(&settings(), &Dump::default());
    assert_eq!(found.tunnel.name, "wg0");
    assert_eq!(found.own_addresses, Vec::<IpAddr>::new());
}
