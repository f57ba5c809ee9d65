//! Stories and properties of the control core: no socket, no clock, no root.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

#[path = "control/acks.rs"]
mod acks;
#[path = "control/agents.rs"]
mod agents;
#[path = "control/combined.rs"]
mod combined;
#[path = "control/handshake.rs"]
mod handshake;
#[path = "control/registry.rs"]
mod registry;
#[path = "control/state.rs"]
mod state;
#[path = "control/support.rs"]
mod support;
#[path = "control/tokens.rs"]
mod tokens;
