//! Entry point of the edge daemon.
fn main() {}
