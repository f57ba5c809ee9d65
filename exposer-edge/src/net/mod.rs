//! What the edge knows of the host's network: interfaces and routes, who stands at their hooks, and ports and connections
//! that the host itself uses.
pub mod connections;
pub mod environment;
pub mod firewall;
pub mod hooks;
pub mod links;
pub mod listeners;
pub mod reserved;
