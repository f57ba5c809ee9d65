//! Framing: bytes to messages and back, without any I/O.
//!
//! A frame is a `u32` in big-endian order and as many bytes, which are exactly one bincode message (little-endian,
//! variable-length integers). Three traps of bincode 2 are closed here and nowhere else:
//!
//! * *Its limit does not hold when encoding.* [`encode`] measures the result, and decodes it once as the peer will: a
//!   message that leaves this function is one that the same version takes.
//! * *Bytes after the message are accepted.* [`FrameDecoder::next`] wants the whole body consumed.
//! * *Integers may be longer than needed.* The decoder encodes what it read and compares: each message has exactly one
//!   frame. The proof of the token covers raw frames, so nothing depends on this for safety; it costs one encoding of
//!   a rare and small message, and finds a peer with another encoder at its first frame instead of at some odd value.
//!
//! Memory: nothing is allocated by a claimed length. The buffer holds what arrived, and a frame over the limit is
//! refused when its first four bytes are there. bincode's own budget ([`DECODE_BUDGET`]) bounds what a list claims.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

use super::MAX_FRAME;
use super::error::CodecError;

/// Bytes in front of a frame's body.
pub const PREFIX: usize = 4;

/// What decoding one message may claim, in bytes of memory as bincode counts it (the length of a list times the size of
/// its element, which is more than its bytes on the wire).
pub const DECODE_BUDGET: usize = 4 << 20;

type Wire = Configuration<LittleEndian, Varint, Limit<DECODE_BUDGET>>;

const WIRE: Wire = bincode::config::standard().with_limit::<DECODE_BUDGET>();

/// The bytes of one frame as they stood on the wire, its length included: what the token proof is made over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameBytes(Vec<u8>);

impl FrameBytes {
    /// The whole frame, equal to what [`encode`] returned at the sender.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The message's bytes alone.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.0.get(PREFIX..).unwrap_or_default()
    }
}

impl AsRef<[u8]> for FrameBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// The frame of `message`, its length included.
///
/// # Errors
///
/// When the message is over [`MAX_FRAME`], or could not be decoded by the peer. [`super::parts`] splits large ones.
pub fn encode<M: Encode + Decode<()>>(message: &M) -> Result<Vec<u8>, CodecError> {
    let body =
        bincode::encode_to_vec(message, WIRE).map_err(|error| CodecError::Encode(error.to_string()))?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= MAX_FRAME)
        .ok_or(CodecError::MessageTooLarge {
            length: body.len(),
            limit: MAX_FRAME,
        })?;
    if let Err(error) = bincode::decode_from_slice::<M, _>(&body, WIRE) {
        return Err(CodecError::Encode(format!(
            "the peer could not decode it: {error}"
        )));
    }
    let mut frame = Vec::with_capacity(PREFIX.saturating_add(body.len()));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// How many bytes `value` takes on the wire.
///
/// # Errors
///
/// When it can't be encoded.
pub(super) fn encoded_len<T: Encode>(value: &T) -> Result<usize, bincode::error::EncodeError> {
    let mut encoder = bincode::enc::EncoderImpl::new(bincode::enc::write::SizeWriter::default(), WIRE);
    value.encode(&mut encoder)?;
    Ok(encoder.into_writer().bytes_written)
}

/// Decodes the body of one frame, strictly.
fn decode<M: Encode + Decode<()>>(body: &[u8]) -> Result<M, CodecError> {
    let malformed = |cause: String| CodecError::Malformed {
        length: body.len(),
        cause,
    };
    let (message, consumed) =
        bincode::decode_from_slice::<M, _>(body, WIRE).map_err(|error| malformed(error.to_string()))?;
    let extra = body.len().saturating_sub(consumed);
    if extra > 0 {
        return Err(CodecError::Trailing { extra });
    }
    let again = bincode::encode_to_vec(&message, WIRE).map_err(|error| malformed(error.to_string()))?;
    if again != body {
        return Err(CodecError::NotCanonical);
    }
    Ok(message)
}

/// Takes bytes as they arrive and gives messages back.
///
/// After an error the stream has no known boundary any more: the decoder repeats the error for ever, and takes no more
/// bytes.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    limit: u32,
    failed: Option<CodecError>,
    first: bool,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameDecoder {
    /// A decoder for frames of up to [`MAX_FRAME`] bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_limit(MAX_FRAME)
    }

    /// A decoder for frames of up to `limit` bytes: [`super::MAX_HANDSHAKE_FRAME`] for a peer that is not proven.
    #[must_use]
    pub const fn with_limit(limit: u32) -> Self {
        Self {
            buffer: Vec::new(),
            limit,
            failed: None,
            first: true,
        }
    }

    /// Changes the limit for the frames that [`Self::next`] has not given back yet.
    pub const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Takes bytes from the wire. Call [`Self::next`] until it gives nothing before the next `push`: the buffer then never
    /// holds more than one frame and one push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes that arrived and belong to no complete frame yet.
    #[must_use]
    pub const fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next message and the frame that held it; `None` until more bytes arrive.
    ///
    /// # Errors
    ///
    /// When the bytes are no frame or no message of type `M`; from then on always.
    #[expect(
        clippy::should_implement_trait,
        reason = "generic over the message, which an Iterator can't be"
    )]
    pub fn next<M: Encode + Decode<()>>(&mut self) -> Result<Option<(M, FrameBytes)>, CodecError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.advance() {
            Ok(found) => Ok(found),
            Err(error) => {
                self.buffer = Vec::new();
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// To be called when the peer has closed: an error if that was inside a frame.
    ///
    /// # Errors
    ///
    /// [`CodecError::Cut`], or the error that the decoder stopped at.
    pub fn finish(&self) -> Result<(), CodecError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.buffer.is_empty() => Ok(()),
            None => Err(CodecError::Cut {
                received: self.buffer.len(),
            }),
        }
    }

    fn advance<M: Encode + Decode<()>>(&mut self) -> Result<Option<(M, FrameBytes)>, CodecError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        if length > self.limit {
            return Err(match other_protocol(*prefix) {
                Some(name) if self.first => CodecError::OtherProtocol(name),
                _ => CodecError::TooLarge {
                    length,
                    limit: self.limit,
                },
            });
        }
        if length == 0 {
            return Err(CodecError::Empty);
        }
        let end = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_add(PREFIX);
        if self.buffer.len() < end {
            return Ok(None);
        }
        let rest = self.buffer.split_off(end);
        let frame = FrameBytes(std::mem::replace(&mut self.buffer, rest));
        self.first = false;
        Ok(Some((decode(frame.body())?, frame)))
    }
}

/// What else speaks first with these four bytes: read as a length, each is far over any limit.
fn other_protocol(prefix: [u8; PREFIX]) -> Option<&'static str> {
    match &prefix {
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"DELE" | b"PATC" | b"CONN" | b"HTTP" => {
            Some("HTTP")
        }
        b"PRI " => Some("HTTP/2"),
        b"SSH-" => Some("SSH"),
        [0x14..=0x17, 0x03, 0..=4, _] => Some("TLS"),
        _ => None,
    }
}
