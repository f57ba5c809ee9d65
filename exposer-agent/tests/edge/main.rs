//! The agent's side of the control channel, against an edge that is scripted from exposer-common; no privilege needed.
//!
//! `session` without sockets, `client` over loopback, `process` with the real binary and an embedded API server.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "a failing test is what a panic is for"
)]

mod client;
mod conversation;
mod pair;
mod process;
mod script;
mod session;
