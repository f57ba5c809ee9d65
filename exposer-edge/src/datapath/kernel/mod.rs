//! To be written.

pub mod object;
