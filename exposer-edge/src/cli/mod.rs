//! The commands that a person runs beside the daemon. Exit statuses are in `exposer-edge --help`.

pub mod check;
pub mod cleanup;
pub mod client;
pub mod explain;
pub mod flows;
pub mod output;
pub mod status;
pub mod token;
