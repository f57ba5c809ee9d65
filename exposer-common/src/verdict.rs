//! Verdicts and their numbered reasons.
//!
//! Every packet that a program of ours looks at leaves with one [`Reason`], counted per CPU in the map `REASONS` at
//! index [`Reason::index`]. Numbers are **append-only**: a reason that is retired keeps its number for ever, so that
//! counters, dashboards and old daemons never disagree about what a number means. The userspace path counts by the
//! same numbers.

/// What happens to a packet.
///
/// PASS is `TC_ACT_UNSPEC` (`TCX_NEXT`), never `TC_ACT_OK`: other people's programs behind ours still run
/// (DESIGN §1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave the packet to whoever comes next, at last the VPS's own stack and the userspace path behind it.
    Pass,
    /// Send it out of another interface.
    Redirect,
    /// Drop it.
    Drop,
}

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal, $verdict:ident; )+) => {
        /// Why a packet got its verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $( $(#[doc = $doc])+ $name = $number, )+
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// The stable name that is printed, counted and searched for.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }

            /// What a packet with this reason gets.
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $( Self::$name => Verdict::$verdict, )+ }
            }

            /// One sentence for the operator.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $( Self::$name => concat!($($doc),+).trim_ascii(), )+ }
            }
        }
    };
}

reasons! {
    /// The destination port is not one of ours.
    Unmanaged = 0, "UNMANAGED", Pass;
    /// Not IPv4 (ARP, IPv6, VLAN-tagged inside, other protocols).
    NotIpv4 = 1, "NOT_IPV4", Pass;
    /// The frame was not addressed to this host (broadcast, multicast, promiscuous).
    NotForHost = 2, "NOT_FOR_HOST", Pass;
    /// Neither TCP nor UDP.
    NotTcpUdp = 3, "NOT_TCP_UDP", Pass;
    /// Too short for the headers that it claims to have.
    Truncated = 4, "TRUNCATED", Pass;
    /// A header field contradicts the packet (version, header length, total length).
    Malformed = 5, "MALFORMED", Pass;
    /// Carries IPv4 options; the userspace path takes it.
    IpOptions = 6, "IP_OPTIONS", Pass;
    /// A later fragment whose first was not translated, or has not been seen; the stack reassembles it for the userspace path.
    Fragment = 7, "FRAGMENT", Pass;
    /// The source is special-purpose, one of our own addresses, or inside a home prefix or tunnel route.
    SourceMartian = 8, "SOURCE_MARTIAN", Pass;
    /// The port is managed, but not on this destination address.
    NoService = 9, "NO_SERVICE", Pass;
    /// A TCP segment that opens nothing and belongs to no flow of the kernel path.
    NoFlow = 10, "NO_FLOW", Pass;
    /// A live socket of this host owns the tuple.
    OwnedBySocket = 11, "OWNED_BY_SOCKET", Pass;
    /// The userspace path is serving this UDP client.
    HandedOver = 12, "HANDED_OVER", Pass;
    /// The daemon's heartbeat is too old: no new flow is made.
    ControlStale = 13, "CONTROL_STALE", Pass;
    /// No free SNAT port was found within the bounded probes.
    SnatExhausted = 14, "SNAT_EXHAUSTED", Pass;
    /// The flow table is full.
    FlowsFull = 15, "FLOWS_FULL", Pass;
    /// The service is served in userspace by configuration.
    ServiceUserspace = 16, "SERVICE_USERSPACE", Pass;
    /// A reply that belongs to no flow of the kernel path.
    NoReply = 17, "NO_REPLY", Pass;
    /// A helper of the kernel failed before anything was written.
    HelperFailed = 18, "HELPER_FAILED", Pass;
    /// Toward home, on an existing flow.
    ForwardHit = 19, "FORWARD_HIT", Redirect;
    /// Toward home, on a flow that this packet made.
    ForwardNew = 20, "FORWARD_NEW", Redirect;
    /// Toward the client.
    ReplyHit = 21, "REPLY_HIT", Redirect;
    /// Belongs to a flow, but the tunnel interface is gone or not known.
    TunnelDown = 22, "TUNNEL_DOWN", Drop;
    /// Belongs to a flow, but the public interface is gone or not known.
    WanDown = 23, "WAN_DOWN", Drop;
    /// Belongs to a flow, and its time to live ran out here.
    TtlExpired = 24, "TTL_EXPIRED", Drop;
    /// Belongs to a flow, and rewriting it failed half way.
    RewriteFailed = 25, "REWRITE_FAILED", Drop;
    /// Larger than the tunnel's MTU without leave to fragment; counted beside the verdict of the packet.
    Oversized = 26, "OVERSIZED", Redirect;
    /// A TCP SYN while too many flows of its service, or of all, are unanswered; the stack takes it, with SYN cookies.
    UnrepliedBudget = 27, "UNREPLIED_BUDGET", Pass;
    /// Carries a VLAN tag, so it is for another interface.
    Vlan = 28, "VLAN", Pass;
    /// An ICMP error about a flow of ours, translated toward home.
    IcmpToHome = 29, "ICMP_TO_HOME", Redirect;
    /// An ICMP error about a flow of ours, translated toward the client.
    IcmpToClient = 30, "ICMP_TO_CLIENT", Redirect;
    /// An ICMP error about a flow of ours that claims an absurd path MTU.
    IcmpAbsurd = 31, "ICMP_ABSURD", Drop;
    /// ICMP that is no error, or one about no flow of ours.
    IcmpOther = 32, "ICMP_OTHER", Pass;
    /// Too large for the tunnel and not to be fragmented: answered with "fragmentation needed".
    TooBigAnswered = 33, "TOO_BIG_ANSWERED", Redirect;
    /// Its time to live ran out here: answered with "time exceeded".
    TtlAnswered = 34, "TTL_ANSWERED", Redirect;
    /// Belongs to a flow and should have been answered with an ICMP error, but too many were sent of late.
    IcmpLimited = 35, "ICMP_LIMITED", Drop;
    /// A later fragment whose first has been translated.
    FragmentForwarded = 36, "FRAGMENT_FORWARDED", Redirect;
    /// A TCP SYN from a client that opens too many connections; the userspace path takes it, within its own limits.
    SourceLimited = 37, "SOURCE_LIMITED", Pass;
    /// A datagram that would have made a flow beyond the limit of its client, its service or all.
    UdpLimited = 38, "UDP_LIMITED", Drop;
}

impl Reason {
    /// Slots of the counter map `REASONS`; larger than the number of reasons, so that a new reason needs no new layout.
    pub const SLOTS: u32 = 64;

    /// The index of this reason's counter.
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.index() == index)
    }
}
