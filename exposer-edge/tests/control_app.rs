//! The whole daemon in a namespace: a scripted agent over TCP, a client, a server at home. Needs root.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "control_app/explain.rs"]
mod explain;
#[path = "control_app/kernel.rs"]
mod kernel;
#[path = "control_app/support.rs"]
mod support;
#[path = "control_app/tokens.rs"]
mod tokens;
#[path = "control_app/userspace.rs"]
mod userspace;
