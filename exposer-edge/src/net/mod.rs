//! What the edge knows of the host's network: interfaces and routes, and ports that the host itself uses.
pub mod environment;
pub mod firewall;
pub mod links;
pub mod listeners;
pub mod reserved;
