//! What can go wrong on the control channel, in words for the person on the *other* side.
//!
//! A side that finds an error sends it as an [`ErrorMessage`] before it closes, so every text here is written to be
//! read in the peer's log: it names the likely cause and what to do.

use thiserror::Error;

use super::message::{ErrorCode, ErrorMessage};
use super::{MAX_VERSION, MIN_VERSION};
use crate::model::ServiceId;

/// Longest text of an [`ErrorMessage`] that is sent or shown, in characters.
pub const MAX_ERROR_TEXT: usize = 512;

/// Why bytes are no frame, or a message does not fit into one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// The length in front of a frame is over the limit of the phase.
    #[error(
        "a frame of {length} bytes is over the limit of {limit}; a peer that speaks Exposer's protocol splits it"
    )]
    TooLarge {
        /// What the frame claims to be long, in bytes.
        length: u32,
        /// What is allowed, in bytes.
        limit: u32,
    },
    /// The first bytes are those of another protocol.
    #[error(
        "these bytes look like {0}, not like Exposer's control channel; check that the address and port are the edge's \
         control address (EXPOSER_LISTEN_ADDR, by default 10.0.0.1:9090)"
    )]
    OtherProtocol(&'static str),
    /// A frame of no bytes.
    #[error("an empty frame is no message; the peer is no Exposer, or damaged")]
    Empty,
    /// The body is no message of this direction.
    #[error(
        "the frame of {length} bytes is no message of this direction ({cause}); are both sides of the same version?"
    )]
    Malformed {
        /// Length of the body, in bytes.
        length: usize,
        /// What the decoder said.
        cause: String,
    },
    /// The body goes on after the message.
    #[error("the frame has {extra} bytes after its message; are both sides of the same version?")]
    Trailing {
        /// How many bytes are left over.
        extra: usize,
    },
    /// The body is not the one encoding of its message.
    #[error("the frame is not the canonical encoding of its message; the peer is no Exposer, or damaged")]
    NotCanonical,
    /// A message of our own does not fit into one frame.
    #[error("a message of {length} bytes does not fit into one frame of {limit}")]
    MessageTooLarge {
        /// Its length, in bytes.
        length: usize,
        /// What is allowed, in bytes.
        limit: u32,
    },
    /// A message of our own can't be encoded so that the peer could decode it.
    #[error("a message can't be encoded: {0}")]
    Encode(String),
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame, after {received} bytes of it")]
    Cut {
        /// What had arrived of the frame, its length included.
        received: usize,
    },
}

impl CodecError {
    /// The code that the peer is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } | Self::MessageTooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::OtherProtocol(_)
            | Self::Empty
            | Self::Malformed { .. }
            | Self::Trailing { .. }
            | Self::NotCanonical
            | Self::Encode(_)
            | Self::Cut { .. } => ErrorCode::Malformed,
        }
    }
}

impl From<&CodecError> for ErrorMessage {
    fn from(error: &CodecError) -> Self {
        Self::new(error.code(), &error.to_string())
    }
}

/// Why a message can't be split into frames that the peer takes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PartsError {
    /// One element alone is over the limit.
    #[error(
        "Service {id} needs {length} bytes on the wire; one frame holds {limit}: give it fewer ports or addresses"
    )]
    TooLarge {
        /// The Service.
        id: ServiceId,
        /// What it needs, in bytes.
        length: usize,
        /// What there is, in bytes.
        limit: usize,
    },
    /// An element can't be encoded at all.
    #[error("Service {id} can't be encoded: {cause}")]
    Encode {
        /// The Service.
        id: ServiceId,
        /// What the encoder said.
        cause: String,
    },
}

/// No protocol version that both sides speak.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum VersionError {
    /// The ranges do not overlap.
    #[error(
        "no common protocol version: the peer speaks {min} to {max}, this side {MIN_VERSION} to {MAX_VERSION}; update \
         the older side"
    )]
    NoCommon {
        /// Oldest version of the peer.
        min: u16,
        /// Newest version of the peer.
        max: u16,
    },
    /// The range is upside down.
    #[error("the peer's version range is upside down: {min} to {max}; it is no Exposer, or damaged")]
    Reversed {
        /// Its lower end.
        min: u16,
        /// Its upper end.
        max: u16,
    },
    /// The peer chose a version that was not offered.
    #[error("the peer chose protocol version {0}, which was not offered ({MIN_VERSION} to {MAX_VERSION})")]
    NotOffered(u16),
}

impl From<&VersionError> for ErrorMessage {
    fn from(error: &VersionError) -> Self {
        Self::new(ErrorCode::Version, &error.to_string())
    }
}

impl ErrorCode {
    /// Stable name, for logs and scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::FrameTooLarge => "frame-too-large",
            Self::Version => "version",
            Self::Unauthenticated => "unauthenticated",
            Self::AgentName => "agent-name",
            Self::OutOfOrder => "out-of-order",
            Self::Limit => "limit",
            Self::Timeout => "timeout",
            Self::Replaced => "replaced",
            Self::ShuttingDown => "shutting-down",
            Self::AccessChanged => "access-changed",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ErrorMessage {
    /// An error for the peer; the text is cut to [`MAX_ERROR_TEXT`] and made printable.
    #[must_use]
    pub fn new(code: ErrorCode, text: &str) -> Self {
        Self {
            code,
            text: printable(text),
        }
    }
}

impl std::fmt::Display for ErrorMessage {
    /// Safe for a log or terminal, whatever the peer wrote.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", printable(&self.text), self.code)
    }
}

/// `text` with control characters as spaces, at most [`MAX_ERROR_TEXT`] characters: what a peer wrote must not forge
/// log lines or move a terminal's cursor.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_ERROR_TEXT)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}
