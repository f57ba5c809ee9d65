//! Any bytes, in any pieces: a message, an error, or more bytes wanted; what is accepted encodes to the same bytes.
//!
//! The first byte says how the rest is cut into pieces.
#![no_main]

use exposer_common::proto::codec::{FrameDecoder, encode};
use exposer_common::proto::message::{AgentMessage, EdgeMessage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((piece, stream)) = data.split_first() else {
        return;
    };
    let mut agent = FrameDecoder::new();
    let mut edge = FrameDecoder::new();
    for bytes in stream.chunks(usize::from(*piece).max(1)) {
        agent.push(bytes);
        edge.push(bytes);
        while let Ok(Some((message, frame))) = agent.next::<AgentMessage>() {
            assert_eq!(encode(&message).unwrap(), frame.as_slice());
            if let AgentMessage::Snapshot(snapshot) = &message {
                snapshot
                    .services
                    .iter()
                    .for_each(|record| drop(record.validate()));
            }
        }
        while let Ok(Some((message, frame))) = edge.next::<EdgeMessage>() {
            assert_eq!(encode(&message).unwrap(), frame.as_slice());
        }
    }
    let _ = (agent.finish(), edge.finish());
});
