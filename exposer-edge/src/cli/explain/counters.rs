//! Counters of reasons that tell of trouble, each with what to do. They count since the maps were made, so they are told
//! and do not set the exit status.

use exposer_common::verdict::Reason;
use serde::Serialize;

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Trouble {
    pub reason: &'static str,
    pub count: u64,
    /// What it means.
    pub text: &'static str,
    pub remedy: &'static str,
}

/// Those that tell of trouble, the most frequent first.
pub(super) fn troubles(counts: &[(Reason, u64)]) -> Vec<Trouble> {
    let mut found: Vec<Trouble> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .filter_map(|(reason, count)| {
            Some(Trouble {
                reason: reason.as_str(),
                count: *count,
                text: reason.describe(),
                remedy: remedy(*reason)?,
            })
        })
        .collect();
    found.sort_by_key(|trouble| std::cmp::Reverse(trouble.count));
    found
}

/// What to do about packets with this reason; none where they are part of ordinary life.
const fn remedy(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Truncated | Reason::Malformed => {
            "damaged or forged packets: harmless in small numbers; ethtool -S of the public interface shows errors"
        }
        Reason::SourceMartian => {
            "forged, unless your clients have such addresses (a load balancer, a network beside the VPS): the \
             userspace path serves those"
        }
        Reason::NoService => {
            "clients use an address that is not published: see EXPOSER_PUBLIC_ADDRESS; or a Service was removed a short \
             while ago"
        }
        Reason::ControlStale => {
            "the daemon was away, or stuck, for longer than EXPOSER_HEARTBEAT_MAX_AGE: journalctl -u exposer-edge"
        }
        Reason::SnatExhausted => {
            "too many connections to one backend: widen EXPOSER_SNAT_RANGE, or shorten the Service's idle-timeout"
        }
        Reason::FlowsFull => {
            "exposer-edge flows shows who fills the table; a shorter idle-timeout frees it sooner"
        }
        Reason::HelperFailed | Reason::RewriteFailed => {
            "a defect, or memory ran out: report it, with exposer-edge status and journalctl -k"
        }
        Reason::SourceLimited => {
            "one address opens many connections: a flood, or many people behind it; --new-flows-per-source is the limit"
        }
        Reason::UdpLimited => {
            "datagrams beyond the limits were dropped: a flood, or a backend that does not answer; exposer-edge flows \
             shows from whom"
        }
        Reason::UnrepliedBudget => {
            "a flood of SYNs, or a backend that does not answer: look at it; the userspace path takes them meanwhile"
        }
        Reason::TunnelDown => "the tunnel interface was gone: wg show; systemctl status wg-quick@wg0",
        Reason::WanDown => "the public interface was gone: ip link; journalctl -k",
        Reason::TtlExpired => "packets go in a circle: look at the routes of the edge and of home (ip route)",
        Reason::Oversized => {
            "packets larger than the tunnel are sent in two parts, which is slow: raise MTU in both wg0.conf if the \
             path allows it, or make senders smaller"
        }
        Reason::Vlan => {
            "frames with a VLAN tag: if clients come in by a VLAN, name its interface in EXPOSER_PUBLIC_INTERFACE"
        }
        Reason::IcmpAbsurd => {
            "somebody claims path MTUs below 552: forged, or a broken router near the client"
        }
        Reason::IcmpLimited => {
            "many senders ignore the tunnel's MTU or send in circles: compare TOO_BIG_ANSWERED and TTL_ANSWERED"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trouble_is_told_and_the_worst_first() {
        let counts = [
            (Reason::ForwardHit, 1_000),
            (Reason::TunnelDown, 3),
            (Reason::FlowsFull, 0),
            (Reason::SnatExhausted, 9),
        ];
        let names: Vec<_> = troubles(&counts)
            .into_iter()
            .map(|trouble| (trouble.reason, trouble.count))
            .collect();
        assert_eq!(names, [("SNAT_EXHAUSTED", 9), ("TUNNEL_DOWN", 3)]);
    }

    #[test]
    fn every_drop_has_something_to_do() {
        for reason in Reason::ALL {
            if matches!(reason.verdict(), exposer_common::verdict::Verdict::Drop) {
                assert!(remedy(*reason).is_some(), "{}", reason.as_str());
            }
        }
    }
}
