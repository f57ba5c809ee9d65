//! What is wrong with a port list, in words for the person who wrote it.

use thiserror::Error;

use super::ports::MAX_TEXT;
use super::suggest::Suggestion;
use crate::model::{MAX_PORTS, Protocol};

/// Why a port list is refused: what is wrong, where, and what is right.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("\"{text}\" at character {position}: {problem}")]
pub struct PortsError {
    /// The offending text, shortened.
    pub text: String,
    /// Where it begins in the annotation, counted in characters from 1.
    pub position: usize,
    /// What is wrong with it.
    pub problem: PortsProblem,
}

/// See [`PortsError`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PortsProblem {
    /// Nothing but white space.
    #[error("no port is named; write for example 25565/tcp, 25565/tcp+udp or 8080:80/tcp")]
    Empty,
    /// The list is longer than an annotation of ours may be.
    #[error("the list is longer than {MAX_TEXT} bytes")]
    TooLong,
    /// Two commas with nothing between, or a comma at an end.
    #[error("there is no port here; remove the comma that is too many")]
    EmptyEntry,
    /// No slash.
    #[error("the protocol is missing; write {0}/tcp, {0}/udp or {0}/tcp+udp")]
    NoProtocol(String),
    /// Not one of the three.
    #[error("this is no protocol; write tcp, udp or tcp+udp{0}")]
    Protocol(Suggestion),
    /// The same protocol on both sides of the plus.
    #[error("the same protocol twice; write tcp+udp for both")]
    SameProtocol,
    /// No number from 1 to 65535.
    #[error("this is no port; a port is a number from 1 to 65535")]
    Port,
    /// `080`.
    #[error("a port has no leading zeros; write {0}")]
    LeadingZero(String),
    /// Neither a number nor a name that a Service's port can have.
    #[error("this is no port of a Service; write its number, or its name (a-z, 0-9 and '-')")]
    ServicePort,
    /// More than one colon.
    #[error("one colon is enough: public port, colon, port of the Service, such as 8080:80/tcp")]
    Colons,
    /// `27000-27015:80/udp`.
    #[error(
        "a range can't be mapped to another port; write 27000-27015/udp for the same numbers, or one entry for each port"
    )]
    MappedRange,
    /// `27015-27000/udp`.
    #[error("the range is upside down; write the lower port first")]
    ReversedRange,
    /// More ports than a Service may have.
    #[error("with this there are {0} ports; at most {MAX_PORTS} are allowed for one Service")]
    TooMany(usize),
    /// The same public port and protocol again.
    #[error("public port {port}/{protocol} is named twice")]
    Duplicate {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
}
