//! Why a session or an attempt ended, in words, and how soon the next may follow.

use std::time::Duration;

use exposer_common::proto::auth::{AuthError, TokenError};
use exposer_common::proto::error::{CodecError, PartsError, VersionError};
use exposer_common::proto::message::{ErrorCode, ErrorMessage};
use exposer_common::proto::{DEAD_AFTER, HANDSHAKE_TIMEOUT};
use thiserror::Error;

use super::backoff::Pace;

/// See the [module](self).
#[derive(Debug, Error)]
pub enum Ending {
    /// The token's file can't be read.
    #[error("the token file {path} can't be read: {source}; mount the Secret there or set TOKEN_FILE")]
    TokenFile {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The token's file holds no token.
    #[error("the token file {path} holds no usable token: {source}")]
    Token {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: TokenError,
    },
    /// The edge's name has no address.
    #[error("the edge's name can't be resolved: {0}; check SERVER_ADDR")]
    Resolve(std::io::Error),
    /// No connection.
    #[error(
        "no connection: {0}; check that the tunnel is up, that exposer-edge runs, and that SERVER_ADDR is its control \
         address"
    )]
    Connect(std::io::Error),
    /// The connection took too long to come about.
    #[error(
        "no connection within {} s; check that the tunnel is up (wg show) and that the edge's firewall lets the agent in",
        .0.as_secs()
    )]
    ConnectTimeout(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(std::io::Error),
    /// The edge closed without a word.
    #[error("the edge closed the connection without a word; its log may say why")]
    Closed,
    /// The edge said why it closes.
    #[error("the edge says: {0}")]
    Remote(ErrorMessage),
    /// What came is no message.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// A message that does not belong where it came.
    #[error("the edge sent {0} where it does not belong; are both sides of the same version?")]
    Unexpected(&'static str),
    /// The edge does not hold the token, or there are no random bytes.
    #[error("the edge could not prove itself, so nothing was sent to it: {0}")]
    Auth(#[from] AuthError),
    /// The edge chose a version that was not offered.
    #[error("{0}")]
    Version(#[from] VersionError),
    /// The handshake took too long.
    #[error("the edge did not finish the handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Handshake,
    /// No sign of life.
    #[error("the edge gave no sign of life for {} s", DEAD_AFTER.as_secs())]
    Silent,
    /// A record does not fit into a frame.
    #[error("{0}")]
    Parts(#[from] PartsError),
    /// The agent stops.
    #[error("the agent stops")]
    ShuttingDown,
}

impl Ending {
    /// How soon another attempt makes sense.
    #[must_use]
    pub const fn pace(&self) -> Pace {
        match self {
            Self::Remote(message) => match message.code {
                ErrorCode::OutOfOrder
                | ErrorCode::Timeout
                | ErrorCode::ShuttingDown
                | ErrorCode::AccessChanged => Pace::Quick,
                ErrorCode::Malformed
                | ErrorCode::FrameTooLarge
                | ErrorCode::Version
                | ErrorCode::Unauthenticated
                | ErrorCode::AgentName
                | ErrorCode::Limit
                | ErrorCode::Replaced => Pace::Slow,
            },
            Self::Codec(error) => match error {
                CodecError::Cut { .. } => Pace::Quick,
                _ => Pace::Slow,
            },
            Self::Unexpected(_) | Self::Auth(_) | Self::Version(_) | Self::Parts(_) => Pace::Slow,
            Self::TokenFile { .. }
            | Self::Token { .. }
            | Self::Resolve(_)
            | Self::Connect(_)
            | Self::ConnectTimeout(_)
            | Self::Io(_)
            | Self::Closed
            | Self::Handshake
            | Self::Silent
            | Self::ShuttingDown => Pace::Quick,
        }
    }

    /// Whether somebody has to do something, so that it is logged as an error.
    #[must_use]
    pub const fn needs_somebody(&self) -> bool {
        matches!(self.pace(), Pace::Slow) || matches!(self, Self::TokenFile { .. } | Self::Token { .. })
    }

    /// What the edge is told, where it does not know yet.
    #[must_use]
    pub fn for_the_edge(&self) -> Option<ErrorMessage> {
        let text = self.to_string();
        match self {
            Self::Codec(CodecError::Cut { .. }) => None,
            Self::Codec(error) => Some(ErrorMessage::from(error)),
            Self::Version(error) => Some(ErrorMessage::from(error)),
            Self::Auth(error) => Some(ErrorMessage::from(error)),
            Self::Unexpected(name) => Some(ErrorMessage::new(
                ErrorCode::Malformed,
                &format!("{name} does not belong here; are both sides of the same version?"),
            )),
            Self::Parts(_) => Some(ErrorMessage::new(ErrorCode::FrameTooLarge, &text)),
            Self::Handshake => Some(ErrorMessage::new(
                ErrorCode::Timeout,
                "the handshake took too long",
            )),
            Self::Silent => Some(ErrorMessage::new(ErrorCode::Timeout, "no sign of life for 90 s")),
            Self::ShuttingDown => Some(ErrorMessage::new(
                ErrorCode::ShuttingDown,
                "the agent stops; its Services may stay up",
            )),
            Self::TokenFile { .. }
            | Self::Token { .. }
            | Self::Resolve(_)
            | Self::Connect(_)
            | Self::ConnectTimeout(_)
            | Self::Io(_)
            | Self::Closed
            | Self::Remote(_) => None,
        }
    }
}
