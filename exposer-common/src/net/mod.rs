//! Pure packet decisions: values in, values out, no packet and no map in sight.
//!
//! Both directions and both programs use the same verbs in the same order: [`parse`] a header, judge the source
//! ([`source`]), make or find a mapping ([`nat`]), correct checksums ([`checksum`]), clamp the MSS ([`mss`]). What a
//! flow's two entries say about its state and its end is [`state`].
pub mod checksum;
pub mod icmp;
pub mod mss;
pub mod nat;
pub mod parse;
pub mod source;
pub mod state;
