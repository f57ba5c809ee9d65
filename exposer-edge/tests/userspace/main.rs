//! Stories of the userspace path over loopback, one module each. None needs privilege.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    reason = "test code: a failing test is what a panic is for"
)]

mod half_close;
mod support;
