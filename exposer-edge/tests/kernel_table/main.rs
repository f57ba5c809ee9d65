//! Packet in → verdict, reason and packet out: `wan_ingress` through `BPF_PROG_TEST_RUN`, in a namespace and a bpffs
//! of the test's own. Each row is one packet against freshly made maps.
//!
//! Needs root.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code"
)]

mod bench;
mod guards;
mod limits;
mod packet;
mod passes;
mod router;
mod sweep;
mod tcp_udp;
