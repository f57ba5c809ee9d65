//! Stories of the userspace path over loopback, one module each. None needs privilege.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code: a failing test is what a panic is for"
)]

mod bulk;
mod caps;
mod families;
mod half_close;
mod no_backend;
mod ports;
mod proxy_header;
mod removal;
mod reset;
mod silence;
mod support;
mod udp;
mod udp_end;
