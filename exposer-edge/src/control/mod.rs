//! The control core: sans-IO, so that every decision can be tested without a socket, a clock or root.
//!
//! | module | duty |
//! |---|---|
//! | [`core`] | sessions, registry and datapath steps behind `handle_*`, `next_command`, `poll_timeout` |
//! | [`session`], [`snapshot`] | one connection: handshake, order, limits, signs of life |
//! | [`tokens`], [`limits`] | which token an agent has to prove, and what its holder may publish |
//! | [`registry`], [`ports`], [`slots`], [`target`], [`claim`], `allowance` | who has which subdomain, port, index, backend |
//! | [`programming`], [`plan`], [`outcome`] | what the datapath was told, what is still to do, what agents are told |
//! | [`agents`], [`view`] | who is connected, what it was told, for how long it has been away; for the status |
//! | [`state_file`], `keeping`, `saved`, [`zones`] | what survives a restart |

pub mod agents;
mod allowance;
pub mod claim;
pub mod core;
mod keeping;
pub mod limits;
pub mod outcome;
mod placement;
pub mod plan;
pub mod ports;
pub mod programming;
pub mod registry;
mod saved;
pub mod session;
pub mod slots;
pub mod snapshot;
pub mod state_file;
pub mod target;
pub mod tokens;
pub mod view;
pub mod zones;
