//! Exposer's edge daemon: forwards public ports of a VPS into a WireGuard tunnel.
//!
//! Three parts, each with one way in:
//!
//! * [`control`]: the sans-IO core. Bytes from agents, results of programming and time go in; frames, steps and state
//!   to save come out. It decides everything and touches nothing.
//! * [`datapath`]: one trait, with the kernel path (BPF programs), the userspace path (tokio proxy) and a recording
//!   one for tests.
//! * [`app`]: the only wiring: it owns sockets, timers and files, and carries values between the two.
pub mod admin;
pub mod app;
pub mod args;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod net;
pub mod readiness;
pub mod status;
pub mod telemetry;
pub mod token_store;
