//! Entry point of the developer commands.
fn main() {}
