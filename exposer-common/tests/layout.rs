//! Sizes, offsets and numbers that kernel programs, pinned maps and old daemons rely on. Whoever changes one raises
//! `names::LAYOUT_VERSION`; reason numbers never change at all.
#![expect(clippy::arithmetic_side_effects, reason = "test code")]

use std::collections::BTreeSet;
use std::mem::{align_of, offset_of, size_of};

use exposer_common::flow::{
    Bucket, Control, FlowEntry, FlowKey, FragmentKey, FragmentPorts, Rate, SourceKey,
};
use exposer_common::link::{LinkEntry, NetKind};
use exposer_common::names;
use exposer_common::service::{L4Proto, PORT_SLOTS, PortMode, ServiceCounters, ServiceEntry, ServiceKey};
use exposer_common::verdict::{Reason, Verdict};

/// The fields of a struct in order, each with its size: they must fill it without a gap.
macro_rules! layout {
    ($name:ident, $size:literal, $align:literal, { $($field:ident: $width:literal),+ $(,)? }) => {{
        assert_eq!(size_of::<$name>(), $size, stringify!($name));
        assert_eq!(align_of::<$name>(), $align, stringify!($name));
        let mut next = 0;
        $(
            assert_eq!(offset_of!($name, $field), next, "{}.{}", stringify!($name), stringify!($field));
            next += $width;
        )+
        assert_eq!(next, $size, "{} has padding that no field names", stringify!($name));
        // A field that is missing above makes this pattern incomplete.
        let _ = |value: $name| { let $name { $($field: _),+ } = value; };
    }};
}

#[test]
fn structs_of_the_maps() {
    assert_eq!(
        names::LAYOUT_VERSION,
        1,
        "a new layout version needs new pins here"
    );
    layout!(ServiceKey, 8, 4, { address: 4, port: 2, proto: 1, pad: 1 });
    layout!(ServiceEntry, 24, 8, {
        backend: 4, backend_port: 2, mode: 1, egress_zone: 1,
        snat_address: 4, snat_first: 2, snat_count: 2, index: 4, generation: 4,
    });
    layout!(ServiceCounters, 40, 8, { flows: 8, packets_in: 8, bytes_in: 8, packets_out: 8, bytes_out: 8 });
    layout!(FlowKey, 16, 8, { saddr: 4, daddr: 4, sport: 2, dport: 2, proto: 1, zone: 1, pad: 2 });
    layout!(FlowEntry, 64, 8, {
        saddr: 4, daddr: 4, sport: 2, dport: 2, addr_diff: 4, port_diff: 4, service: 4, generation: 4,
        egress_zone: 1, tcp_flags: 1, flags: 1, pad: 1, seen: 8, packets: 8, bytes: 8, created: 8,
    });
    layout!(Control, 64, 8, { heartbeat: 8, max_age: 8, per_source: 16, per_service: 16, overall: 16 });
    layout!(Rate, 16, 8, { burst: 8, interval: 8 });
    layout!(SourceKey, 4, 4, { saddr: 4 });
    layout!(FragmentKey, 12, 4, { saddr: 4, daddr: 4, id: 2, proto: 1, zone: 1 });
    layout!(FragmentPorts, 16, 8, { seen: 8, sport: 2, dport: 2, pad: 4 });
    layout!(Bucket, 16, 8, { tokens: 8, filled: 8 });
    layout!(LinkEntry, 16, 4, { ifindex: 4, mtu: 4, next_hop: 4, mss: 2, pad: 2 });
}

#[test]
fn numbers_of_the_maps() {
    assert_eq!(
        [
            PortMode::Unmanaged,
            PortMode::Masquerade,
            PortMode::Transparent,
            PortMode::Userspace
        ]
        .map(|mode| mode as u8),
        [0, 1, 2, 3]
    );
    assert_eq!([L4Proto::Tcp, L4Proto::Udp].map(|proto| proto as u8), [6, 17]);
    assert_eq!(
        [NetKind::Home, NetKind::Own, NetKind::OnLink].map(|kind| kind as u8),
        [1, 2, 3]
    );
    assert_eq!(
        size_of::<PortMode>() + size_of::<NetKind>() + size_of::<L4Proto>(),
        3
    );
    assert_eq!(PORT_SLOTS, 131_072);
    assert_eq!(L4Proto::Tcp.port_slot(65_535), 65_535);
    assert_eq!(L4Proto::Udp.port_slot(0), 65_536);
    assert_eq!(L4Proto::Udp.port_slot(65_535), PORT_SLOTS - 1);
    let unique: BTreeSet<_> = names::MAPS.iter().collect();
    assert_eq!(unique.len(), names::MAPS.len());
    // The kernel keeps 15 characters of a map's or program's name.
    for name in names::MAPS
        .iter()
        .chain(&[names::PROG_WAN_INGRESS, names::PROG_TUNNEL_INGRESS])
    {
        assert!(name.len() <= 15, "{name}");
    }
}

/// Every reason that was ever given out, with its number, name and verdict. Lines are appended, never changed.
const REASONS: &[(u32, &str, Verdict)] = &[
    (0, "UNMANAGED", Verdict::Pass),
    (1, "NOT_IPV4", Verdict::Pass),
    (2, "NOT_FOR_HOST", Verdict::Pass),
    (3, "NOT_TCP_UDP", Verdict::Pass),
    (4, "TRUNCATED", Verdict::Pass),
    (5, "MALFORMED", Verdict::Pass),
    (6, "IP_OPTIONS", Verdict::Pass),
    (7, "FRAGMENT", Verdict::Pass),
    (8, "SOURCE_MARTIAN", Verdict::Pass),
    (9, "NO_SERVICE", Verdict::Pass),
    (10, "NO_FLOW", Verdict::Pass),
    (11, "OWNED_BY_SOCKET", Verdict::Pass),
    (12, "HANDED_OVER", Verdict::Pass),
    (13, "CONTROL_STALE", Verdict::Pass),
    (14, "SNAT_EXHAUSTED", Verdict::Pass),
    (15, "FLOWS_FULL", Verdict::Pass),
    (16, "SERVICE_USERSPACE", Verdict::Pass),
    (17, "NO_REPLY", Verdict::Pass),
    (18, "HELPER_FAILED", Verdict::Pass),
    (19, "FORWARD_HIT", Verdict::Redirect),
    (20, "FORWARD_NEW", Verdict::Redirect),
    (21, "REPLY_HIT", Verdict::Redirect),
    (22, "TUNNEL_DOWN", Verdict::Drop),
    (23, "WAN_DOWN", Verdict::Drop),
    (24, "TTL_EXPIRED", Verdict::Drop),
    (25, "REWRITE_FAILED", Verdict::Drop),
    (26, "OVERSIZED", Verdict::Redirect),
    (27, "UNREPLIED_BUDGET", Verdict::Pass),
    (28, "VLAN", Verdict::Pass),
    (29, "ICMP_TO_HOME", Verdict::Redirect),
    (30, "ICMP_TO_CLIENT", Verdict::Redirect),
    (31, "ICMP_ABSURD", Verdict::Drop),
    (32, "ICMP_OTHER", Verdict::Pass),
    (33, "TOO_BIG_ANSWERED", Verdict::Redirect),
    (34, "TTL_ANSWERED", Verdict::Redirect),
    (35, "ICMP_LIMITED", Verdict::Drop),
    (36, "FRAGMENT_FORWARDED", Verdict::Redirect),
    (37, "SOURCE_LIMITED", Verdict::Pass),
    (38, "UDP_LIMITED", Verdict::Drop),
];

#[test]
fn reasons_keep_their_numbers() {
    for (number, name, verdict) in REASONS {
        let reason = Reason::from_index(*number).unwrap_or_else(|| panic!("reason {number} {name} is gone"));
        assert_eq!(
            (reason.as_str(), reason.verdict()),
            (*name, *verdict),
            "reason {number}"
        );
    }
    assert_eq!(
        Reason::ALL.len(),
        REASONS.len(),
        "append the new reason to this table"
    );
}

#[test]
fn reasons_have_a_counter_each_and_can_be_told_apart() {
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for reason in Reason::ALL {
        assert!(reason.index() < Reason::SLOTS, "{reason:?} has no counter");
        assert!(
            numbers.insert(reason.index()) && names.insert(reason.as_str()),
            "{reason:?} is there twice"
        );
        assert_eq!(Reason::from_index(reason.index()), Some(*reason));
        assert!(
            reason
                .as_str()
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        );
        assert!(
            reason.describe().ends_with('.'),
            "{reason:?}: {}",
            reason.describe()
        );
    }
    assert_eq!(Reason::from_index(Reason::SLOTS), None);
}
