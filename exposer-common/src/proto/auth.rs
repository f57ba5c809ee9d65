//! Proof of the shared token, and the choice of the version.
//!
//! Both sides hold the same [`Token`]; it never travels. Each proves it by HMAC-SHA256 (RFC 2104) over the transcript:
//!
//! ```text
//! transcript = len(Hello frame) ‖ Hello frame ‖ len(Challenge frame) ‖ Challenge frame        len: u32 big-endian
//! mac_agent  = HMAC(token, "exposer/1 agent\0" ‖ transcript)
//! mac_edge   = HMAC(token, "exposer/1 edge\0"  ‖ transcript ‖ mac_agent)
//! ```
//!
//! * The *labels* stop reflection: what one side sent is never the proof of the other.
//! * The *nonces*, fresh in Hello and in Challenge, stop replay of an older conversation, in both directions.
//! * The *whole frames* stop downgrade: who changes the versions or capabilities on the way breaks both proofs.
//! * The *lengths* make the transcript unambiguous, whatever the frames hold.
//!
//! The proof is of the token, not of each later byte: the channel runs inside WireGuard, which protects those.

use std::fmt;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use super::error::VersionError;
use super::message::{ErrorCode, ErrorMessage, MAC, NONCE};
use super::{MAX_VERSION, MIN_VERSION};

const AGENT_LABEL: &[u8] = b"exposer/1 agent\0";
const EDGE_LABEL: &[u8] = b"exposer/1 edge\0";

/// Fewest characters of a token.
pub const MIN_TOKEN: usize = 32;
/// Most bytes of a token, and of its file.
pub const MAX_TOKEN: usize = 4_096;
/// Fewest different characters of a token: `openssl rand -hex 32` has 16 to choose from and practically always passes 8.
pub const MIN_DISTINCT: usize = 8;

/// Why a text is no token. The text itself is never repeated.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// Nothing but white space.
    #[error("the token is empty; make one with: openssl rand -hex 32")]
    Empty,
    /// Too short to resist guessing.
    #[error("the token has {0} characters; at least {MIN_TOKEN} are needed: openssl rand -hex 32")]
    TooShort(usize),
    /// Too long; most likely another file.
    #[error("the token is longer than {MAX_TOKEN} bytes; is this the right file?")]
    TooLong,
    /// White space or bytes that are no printable ASCII.
    #[error("the token has white space or unprintable bytes inside; it must be one line of printable ASCII")]
    NotText,
    /// The same few characters again and again.
    #[error(
        "the token has only {0} different characters and is easy to guess; make one with: openssl rand -hex 32"
    )]
    TooPlain(usize),
}

/// The secret that agent and edge share. Its text shows nowhere, and its memory is cleared when it is dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<Vec<u8>>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AuthError {
    /// The peer's token is another one, or somebody changed the handshake on the way.
    #[error(
        "the proof of the token is wrong: agent and edge must hold the same token (the agent's TOKEN_FILE, the edge's \
         EXPOSER_TOKEN_FILE)"
    )]
    WrongProof,
    /// The system gave no random bytes.
    #[error("the system's random number generator failed")]
    NoRandom,
}

impl From<&AuthError> for ErrorMessage {
    fn from(error: &AuthError) -> Self {
        Self::new(ErrorCode::Unauthenticated, &error.to_string())
    }
}

impl Token {
    /// The token in `bytes`, as they stand in a file or Secret; white space around it does not count.
    ///
    /// # Errors
    ///
    /// When it is too short, too long, no printable text, or plainly guessable.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenError> {
        let token = bytes.trim_ascii();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::NotText);
        }
        if token.len() < MIN_TOKEN {
            return Err(TokenError::TooShort(token.len()));
        }
        let distinct = token.iter().collect::<std::collections::BTreeSet<_>>().len();
        if distinct < MIN_DISTINCT {
            return Err(TokenError::TooPlain(distinct));
        }
        Ok(Self(Zeroizing::new(token.to_vec())))
    }

    /// Whether both are the same secret. Not in constant time: no peer can measure it.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// The agent's proof.
    #[must_use]
    pub fn prove_agent(&self, transcript: &Transcript) -> [u8; MAC] {
        self.sign(&[AGENT_LABEL, &transcript.0])
    }

    /// The edge's proof, which answers the agent's.
    #[must_use]
    pub fn prove_edge(&self, transcript: &Transcript, mac_agent: &[u8; MAC]) -> [u8; MAC] {
        self.sign(&[EDGE_LABEL, &transcript.0, mac_agent])
    }

    /// Checks the agent's proof, in constant time.
    ///
    /// # Errors
    ///
    /// [`AuthError::WrongProof`].
    pub fn verify_agent(&self, transcript: &Transcript, mac: &[u8; MAC]) -> Result<(), AuthError> {
        self.verify(&[AGENT_LABEL, &transcript.0], mac)
    }

    /// Checks the edge's proof, in constant time.
    ///
    /// # Errors
    ///
    /// [`AuthError::WrongProof`].
    pub fn verify_edge(
        &self,
        transcript: &Transcript,
        mac_agent: &[u8; MAC],
        mac: &[u8; MAC],
    ) -> Result<(), AuthError> {
        self.verify(&[EDGE_LABEL, &transcript.0, mac_agent], mac)
    }

    fn sign(&self, parts: &[&[u8]]) -> [u8; MAC] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        for part in parts {
            context.update(part);
        }
        let mut mac = [0; MAC];
        for (to, from) in mac.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        mac
    }

    fn verify(&self, parts: &[&[u8]], mac: &[u8; MAC]) -> Result<(), AuthError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::verify(&key, &parts.concat(), mac).map_err(|_| AuthError::WrongProof)
    }
}

/// What both sides have seen of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// The transcript of the two frames, each as it stood on the wire ([`super::codec::encode`],
    /// [`super::codec::FrameBytes::as_slice`]).
    #[must_use]
    pub fn new(hello_frame: &[u8], challenge_frame: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(
            hello_frame
                .len()
                .saturating_add(challenge_frame.len())
                .saturating_add(8),
        );
        for frame in [hello_frame, challenge_frame] {
            bytes.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        Self(bytes)
    }
}

/// Random bytes for Hello or Challenge.
///
/// # Errors
///
/// [`AuthError::NoRandom`].
pub fn fresh_nonce() -> Result<[u8; NONCE], AuthError> {
    let mut nonce = [0; NONCE];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| AuthError::NoRandom)?;
    Ok(nonce)
}

/// The newest version that this side and a peer with versions `min` to `max` both speak: the edge's choice.
///
/// # Errors
///
/// When there is none.
pub const fn negotiate(min: u16, max: u16) -> Result<u16, VersionError> {
    if min > max {
        return Err(VersionError::Reversed { min, max });
    }
    let version = if max < MAX_VERSION { max } else { MAX_VERSION };
    if version < MIN_VERSION || version < min {
        return Err(VersionError::NoCommon { min, max });
    }
    Ok(version)
}

/// Checks the edge's choice: the agent's side of [`negotiate`].
///
/// # Errors
///
/// [`VersionError::NotOffered`].
pub const fn accept_version(version: u16) -> Result<(), VersionError> {
    if version < MIN_VERSION || version > MAX_VERSION {
        return Err(VersionError::NotOffered(version));
    }
    Ok(())
}
