//! The state and the end of a flow: pure functions of its two entries (DESIGN §2, "Life of a flow").
//!
//! Each direction writes only its own entry, so no entry knows the state of the flow; whoever wants to know reads
//! both. FIN and RST shorten the timeout and never delete: a forged RST closes nothing, because the next packet of a
//! living flow makes it young again, and one that stays silent is forgotten after the closing timeout as NATs do
//! (RFC 5382 §5).

use super::parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use crate::flow::FlowEntry;
use crate::service::L4Proto;

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// Idle timeout of an established TCP flow: 2 h 4 min (RFC 5382 REQ-5).
pub const TCP_ESTABLISHED: u64 = (2 * 3600 + 4 * 60) * SECOND;
/// Idle timeout of a TCP flow that opens or closes: 4 min (RFC 5382 REQ-5).
pub const TCP_TRANSITORY: u64 = 4 * 60 * SECOND;
/// Idle timeout of a UDP flow with traffic both ways: 5 min (RFC 4787 REQ-5).
pub const UDP_ESTABLISHED: u64 = 5 * 60 * SECOND;
/// Lifetime of a flow that home has not answered.
pub const UNREPLIED: u64 = 30 * SECOND;

/// What two entries say about their flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing came back yet.
    Unreplied,
    /// TCP: answered, but the client has not confirmed.
    Opening,
    /// Traffic both ways.
    Established,
    /// TCP: one side has sent FIN, the other goes on.
    HalfClosed,
    /// TCP: both sides have sent FIN, or one has sent RST.
    Closing,
}

impl State {
    /// Lower-case name for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreplied => "unreplied",
            Self::Opening => "opening",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::Closing => "closing",
        }
    }

    /// How long a flow in this state may be idle, in nanoseconds. `idle` replaces the default of an established flow.
    #[inline(always)]
    #[must_use]
    pub const fn timeout(self, proto: L4Proto, idle: Option<u64>) -> u64 {
        match self {
            Self::Unreplied => UNREPLIED,
            Self::Opening | Self::Closing => TCP_TRANSITORY,
            Self::Established | Self::HalfClosed => match (idle, proto) {
                (Some(idle), _) => idle,
                (None, L4Proto::Tcp) => TCP_ESTABLISHED,
                (None, L4Proto::Udp) => UDP_ESTABLISHED,
            },
        }
    }
}

/// The state of a flow. `reply_packets` and `reply_flags` are zero where the reply entry is missing.
#[inline(always)]
#[must_use]
pub const fn state(proto: L4Proto, forward_flags: u8, reply_flags: u8, reply_packets: u64) -> State {
    if reply_packets == 0 {
        return State::Unreplied;
    }
    if matches!(proto, L4Proto::Udp) {
        return State::Established;
    }
    if (forward_flags | reply_flags) & TCP_RST != 0 || forward_flags & reply_flags & TCP_FIN != 0 {
        return State::Closing;
    }
    if forward_flags & TCP_ACK == 0 || reply_flags & TCP_SYN == 0 {
        return State::Opening;
    }
    if (forward_flags | reply_flags) & TCP_FIN != 0 {
        return State::HalfClosed;
    }
    State::Established
}

/// [`state`] of two entries.
#[must_use]
pub const fn state_of(proto: L4Proto, forward: &FlowEntry, reply: &FlowEntry) -> State {
    state(proto, forward.tcp_flags, reply.tcp_flags, reply.packets)
}

/// Nanoseconds since either direction was seen. A clock that seems to run backwards (another CPU's tick) is 0.
#[must_use]
pub const fn idle(forward: &FlowEntry, reply: &FlowEntry, now: u64) -> u64 {
    let seen = if forward.seen > reply.seen {
        forward.seen
    } else {
        reply.seen
    };
    now.saturating_sub(seen)
}

/// Whether the flow's time is over.
#[must_use]
pub const fn expired(
    proto: L4Proto,
    forward: &FlowEntry,
    reply: &FlowEntry,
    now: u64,
    timeout: Option<u64>,
) -> bool {
    idle(forward, reply, now) > state_of(proto, forward, reply).timeout(proto, timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: L4Proto = L4Proto::Tcp;

    fn entry(tcp_flags: u8, packets: u64, seen: u64) -> FlowEntry {
        FlowEntry {
            saddr: [0; 4],
            daddr: [0; 4],
            sport: [0; 2],
            dport: [0; 2],
            addr_diff: 0,
            port_diff: 0,
            service: 0,
            generation: 0,
            egress_zone: 0,
            tcp_flags,
            flags: 0,
            pad: 0,
            seen,
            packets,
            bytes: 0,
            created: 0,
        }
    }

    #[test]
    fn a_connection_from_syn_to_the_last_fin() {
        let rows = [
            (TCP_SYN, 0, 0, State::Unreplied),
            (TCP_SYN, TCP_SYN | TCP_ACK, 1, State::Opening),
            (TCP_SYN | TCP_ACK, TCP_SYN | TCP_ACK, 1, State::Established),
            (
                TCP_SYN | TCP_ACK | TCP_FIN,
                TCP_SYN | TCP_ACK,
                2,
                State::HalfClosed,
            ),
            (
                TCP_SYN | TCP_ACK,
                TCP_SYN | TCP_ACK | TCP_FIN,
                2,
                State::HalfClosed,
            ),
            (
                TCP_SYN | TCP_ACK | TCP_FIN,
                TCP_SYN | TCP_ACK | TCP_FIN,
                3,
                State::Closing,
            ),
            (TCP_SYN | TCP_RST, TCP_SYN | TCP_ACK, 1, State::Closing),
            (TCP_SYN, TCP_RST | TCP_ACK, 1, State::Closing),
        ];
        for (forward, reply, packets, expected) in rows {
            assert_eq!(
                state(TCP, forward, reply, packets),
                expected,
                "{forward:#x} {reply:#x} {packets}"
            );
        }
    }

    #[test]
    fn udp_is_established_by_the_first_answer() {
        assert_eq!(state(L4Proto::Udp, 0, 0, 0), State::Unreplied);
        assert_eq!(state(L4Proto::Udp, 0, 0, 1), State::Established);
    }

    #[test]
    fn each_state_ends_at_its_own_time() {
        let all = TCP_SYN | TCP_ACK;
        let rows = [
            (entry(TCP_SYN, 1, 0), entry(0, 0, 0), UNREPLIED),
            (entry(TCP_SYN, 1, 0), entry(all, 1, 0), TCP_TRANSITORY),
            (entry(all, 9, 0), entry(all, 9, 0), TCP_ESTABLISHED),
            (entry(all | TCP_FIN, 9, 0), entry(all, 9, 0), TCP_ESTABLISHED),
            (
                entry(all | TCP_FIN, 9, 0),
                entry(all | TCP_FIN, 9, 0),
                TCP_TRANSITORY,
            ),
            (entry(all, 9, 0), entry(all | TCP_RST, 9, 0), TCP_TRANSITORY),
        ];
        for (forward, reply, timeout) in rows {
            assert!(
                !expired(TCP, &forward, &reply, timeout, None),
                "not yet at {timeout}"
            );
            assert!(
                expired(TCP, &forward, &reply, timeout + 1, None),
                "over after {timeout}"
            );
        }
    }

    #[test]
    fn either_direction_keeps_a_flow_alive() {
        let all = TCP_SYN | TCP_ACK;
        let now = TCP_ESTABLISHED + 10;
        assert!(!expired(TCP, &entry(all, 9, 20), &entry(all, 9, 0), now, None));
        assert!(!expired(TCP, &entry(all, 9, 0), &entry(all, 9, 20), now, None));
        assert!(expired(TCP, &entry(all, 9, 0), &entry(all, 9, 0), now, None));
    }

    #[test]
    fn a_clock_that_runs_backwards_ends_nothing() {
        assert!(!expired(TCP, &entry(0, 1, 500), &entry(0, 0, 400), 100, None));
    }

    #[test]
    fn a_services_own_timeout_holds_for_established_flows_only() {
        let (forward, reply) = (entry(0, 1, 0), entry(0, 1, 0));
        assert!(expired(
            L4Proto::Udp,
            &forward,
            &reply,
            61 * SECOND,
            Some(60 * SECOND)
        ));
        assert!(!expired(
            L4Proto::Udp,
            &forward,
            &reply,
            59 * SECOND,
            Some(60 * SECOND)
        ));
        assert!(expired(
            L4Proto::Udp,
            &forward,
            &entry(0, 0, 0),
            31 * SECOND,
            Some(3600 * SECOND)
        ));
    }
}
