//! An edge that answers a stranger: whatever he sends as Hello and Proof, nothing panics and no proof holds unless he has
//! the token.
#![no_main]

use exposer_common::proto::MAX_HANDSHAKE_FRAME;
use exposer_common::proto::auth::{Token, Transcript, negotiate};
use exposer_common::proto::codec::{FrameDecoder, encode};
use exposer_common::proto::message::{AgentMessage, Challenge, EdgeMessage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Token::from_bytes(data);
    let token = Token::from_bytes(b"0123456789abcdef0123456789abcdef").unwrap();
    let mut decoder = FrameDecoder::with_limit(MAX_HANDSHAKE_FRAME);
    decoder.push(data);
    let Ok(Some((AgentMessage::Hello(hello), frame))) = decoder.next::<AgentMessage>() else {
        return;
    };
    let Ok(version) = negotiate(hello.min_version, hello.max_version) else {
        return;
    };
    let challenge = encode(&EdgeMessage::Challenge(Challenge {
        version,
        nonce: [9; 32],
    }))
    .unwrap();
    let transcript = Transcript::new(frame.as_slice(), &challenge);
    if let Ok(Some((AgentMessage::Proof(proof), _))) = decoder.next::<AgentMessage>() {
        let honest = token.prove_agent(&transcript) == proof.mac;
        assert_eq!(token.verify_agent(&transcript, &proof.mac).is_ok(), honest);
    }
});
