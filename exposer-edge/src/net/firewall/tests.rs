//! Recorded rulesets (`tests/firewall/`) → what is blocked and what is redirected.
//!
//! They were made by the tools themselves: ufw 0.36.2 with `allow 22/tcp`, the chains of firewalld 1.x (public zone),
//! Docker's nat rules through iptables-nft 1.8.9, and a hand-written nftables ruleset; listed by nft 1.0.6.

use super::*;

const UFW: &str = include_str!("../../../tests/firewall/ufw.iptables");
const UFW_NFT: &str = include_str!("../../../tests/firewall/ufw.json");
const FIREWALLD: &str = include_str!("../../../tests/firewall/firewalld.json");
const DOCKER: &str = include_str!("../../../tests/firewall/docker.iptables");
const DOCKER_NFT: &str = include_str!("../../../tests/firewall/docker.json");
const NFTABLES: &str = include_str!("../../../tests/firewall/nftables.json");

/// Who blocks `port/protocol` from `eth0` to 203.0.113.9 and to 2001:db8::9.
fn blocker(firewall: &Firewall, port: u16, protocol: Protocol) -> [Option<Blocker>; 2] {
    ["203.0.113.9", "2001:db8::9"]
        .map(|address| firewall.blocks(&first_packet("eth0", address.parse().unwrap(), port, protocol)))
}

fn blocked(firewall: &Firewall, port: u16, protocol: Protocol) -> [bool; 2] {
    blocker(firewall, port, protocol).map(|blocker| blocker.is_some())
}

use Protocol::{Tcp, Udp};

#[test]
fn ufw_denies_what_is_not_allowed() {
    let firewall = Firewall::from_iptables_save(Family::Ip, UFW);
    assert_eq!(blocked(&firewall, 22, Tcp), [false, false]);
    for (port, protocol) in [(25_565, Tcp), (25_565, Udp), (139, Tcp), (68, Udp), (5353, Udp)] {
        assert_eq!(
            blocked(&firewall, port, protocol),
            [true, false],
            "{port}/{protocol}"
        );
    }
    let [found, _] = blocker(&firewall, 25_565, Udp);
    let found = found.unwrap();
    assert_eq!(found.rule, "table ip filter, chain INPUT: policy drop");
    assert_eq!(found.remedy, "ufw allow 25565/udp");
    let lo = first_packet("lo", "127.0.0.1".parse().unwrap(), 9999, Tcp);
    assert_eq!(firewall.blocks(&lo), None);
}

#[test]
fn opaque_tables_are_left_to_iptables_save() {
    let parsed = nft::parse(UFW_NFT).unwrap();
    assert_eq!(
        parsed.opaque,
        [
            (Family::Ip, "filter".to_owned()),
            (Family::Ip6, "filter".to_owned())
        ]
    );
    assert!(parsed.tables.is_empty());
    assert!(
        nft::parse(DOCKER_NFT)
            .unwrap()
            .opaque
            .contains(&(Family::Ip, "nat".to_owned()))
    );
}

#[test]
fn firewalld_rejects_what_its_zone_does_not_allow() {
    let firewall = Firewall::from_nft(FIREWALLD).unwrap();
    for (port, protocol, expected) in [
        (22, Tcp, false),
        (25_565, Tcp, false),
        (25_565, Udp, true),
        (80, Tcp, true),
    ] {
        assert_eq!(
            blocked(&firewall, port, protocol),
            [expected; 2],
            "{port}/{protocol}"
        );
    }
    let [found, _] = blocker(&firewall, 80, Tcp);
    let found = found.unwrap();
    assert!(
        found
            .rule
            .starts_with("table inet firewalld, chain filter_IN_public: rule with handle"),
        "{}",
        found.rule
    );
    assert_eq!(
        found.remedy,
        "firewall-cmd --permanent --add-port=80/tcp && firewall-cmd --reload"
    );
    let tunnel = first_packet("wg0", "10.0.0.1".parse().unwrap(), 9090, Tcp);
    assert_eq!(firewall.blocks(&tunnel), None, "the tunnel's zone is trusted");
}

#[test]
fn nftables_by_hand() {
    let firewall = Firewall::from_nft(NFTABLES).unwrap();
    for (port, protocol, expected) in [
        (22, Tcp, [false; 2]),
        (8005, Tcp, [false; 2]),
        (8011, Tcp, [true; 2]),
        (22, Udp, [true; 2]),
        (25_565, Tcp, [false; 2]),
        (25_565, Udp, [false; 2]),
        (51_825, Udp, [false; 2]),
        (51_825, Tcp, [true; 2]),
        (443, Tcp, [false; 2]),
        (444, Tcp, [true; 2]),
        (9000, Tcp, [false, true]),
    ] {
        assert_eq!(blocked(&firewall, port, protocol), expected, "{port}/{protocol}");
    }
    let wg = first_packet("wg1", "203.0.113.9".parse().unwrap(), 9, Tcp);
    assert_eq!(firewall.blocks(&wg), None, "wg* is accepted");
    let [found, _] = blocker(&firewall, 444, Tcp);
    assert_eq!(
        found.unwrap().remedy,
        "nft insert rule inet filter input tcp dport 444 accept"
    );
}

fn redirections(firewall: &Firewall) -> Vec<String> {
    let text = |found: &Redirected| {
        format!(
            "{}/{}",
            found.ports,
            found.protocol.map_or("any", Protocol::as_str)
        )
    };
    firewall.redirected().iter().map(text).collect()
}

#[test]
fn docker_redirects_published_ports() {
    let firewall = Firewall::from_iptables_save(Family::Ip, DOCKER);
    // Port 9999 is published on 127.0.0.1 alone.
    assert_eq!(redirections(&firewall), ["8080-8080/tcp", "5300-5310/udp"]);
    assert!(
        firewall.redirected()[0]
            .rule
            .contains("chain DOCKER: -A DOCKER ! -i docker0 -p tcp")
    );
    assert_eq!(blocked(&firewall, 8080, Tcp), [false; 2]);
}

#[test]
fn nftables_redirections() {
    let firewall = Firewall::from_nft(NFTABLES).unwrap();
    let expected = ["2222-2222/tcp", "7000-7005/tcp", "7100-7100/tcp", "53-53/udp"];
    assert_eq!(redirections(&firewall), expected);
}

#[test]
fn a_rule_for_some_sources_blocks_nobody_else() {
    let rules = |lines: &str| {
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n:f2b - [0:0]\n{lines}\nCOMMIT\n");
        blocked(&Firewall::from_iptables_save(Family::Ip, &text), 80, Tcp)[0]
    };
    for (line, expected) in [
        ("-A INPUT -s 198.51.100.7/32 -j DROP", false),
        ("-A INPUT ! -s 198.51.100.7/32 -j DROP", true),
        ("-A INPUT -p tcp -m set --match-set banned src -j DROP", false),
        (
            "-A INPUT -j f2b\n-A f2b -s 192.0.2.1/32 -j REJECT\n-A f2b -j RETURN",
            false,
        ),
        ("-A INPUT -j f2b\n-A f2b -j DROP", true),
        (
            "-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
            true,
        ),
        (
            "-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP",
            false,
        ),
        (
            "-A INPUT -p tcp -m comment --comment \"not -j ACCEPT\" -j LOG --log-prefix \"x -j ACCEPT\"\n-A INPUT -j DROP",
            true,
        ),
        (
            "-A INPUT -p tcp -m multiport --dports 79,80:90 -j REJECT --reject-with tcp-reset",
            true,
        ),
        (
            "-A INPUT -p tcp -m multiport ! --dports 79,80:90 -j REJECT",
            false,
        ),
        ("-A INPUT -i eth+ -j DROP", true),
        ("-A INPUT ! -i eth0 -j DROP", false),
        ("-A INPUT -p udp -j DROP", false),
        ("-A INPUT -p all -j DROP", true),
        ("-A INPUT -d 203.0.113.0/24 -j DROP", true),
        ("-A INPUT -d 203.0.114.0/24 -j DROP", false),
        (
            "-A INPUT -g f2b\n-A INPUT -j DROP\n-A f2b -s 192.0.2.1/32 -j DROP",
            false,
        ),
        ("-A INPUT -j INPUT", false),
    ] {
        assert_eq!(rules(line), expected, "{line}");
    }
}

#[test]
fn garbage_is_no_ruleset() {
    for text in ["", "{}", "[]", "{\"nftables\": 5}", "nonsense"] {
        let error = Firewall::from_nft(text).unwrap_err().to_string();
        assert!(error.contains("nft -j list ruleset"), "{error}");
    }
    for text in [
        "",
        "-A INPUT -j DROP",
        "*filter\n-A INPUT",
        "*\n:\n-A \n-A X -p",
        "*filter\n:INPUT DROP\n-A INPUT !",
    ] {
        assert_eq!(
            Firewall::from_iptables_save(Family::Ip, text).redirected(),
            [],
            "{text}"
        );
    }
    let odd = "{\"nftables\":[{\"rule\":{\"family\":\"ip\",\"expr\":[{\"match\":{}},{\"vmap\":{}},7]}},{\"chain\":{}}]}";
    assert_eq!(Firewall::from_nft(odd).unwrap().redirected(), []);
}
