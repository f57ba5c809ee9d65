//! Bytes that both sides of a transfer can compute: a stream of 64-bit words from a seed.

use std::io::{self, Read, Write};

use ring::digest::{Context, SHA256};

/// Bytes of one block, in which streams are made and sent.
pub const BLOCK: usize = 65_536;

/// The SplitMix64 finalizer: neighbouring inputs give unrelated outputs.
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Fills `block` with the block number `index` of the stream of `seed`.
pub fn fill(block: &mut [u8], seed: u64, index: u64) {
    let mut state = mix(seed ^ mix(index));
    for chunk in block.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        for (byte, value) in chunk.iter_mut().zip(mix(state).to_le_bytes()) {
            *byte = value;
        }
    }
}

/// Calls `take` with the first `bytes` bytes of the stream of `seed`, block by block.
///
/// # Errors
///
/// Those of `take`.
pub fn stream(seed: u64, bytes: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    let mut index = 0_u64;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK);
        let part = block.get_mut(..size).unwrap_or_default();
        fill(part, seed, index);
        take(part)?;
        left = left.saturating_sub(size as u64);
        index = index.saturating_add(1);
    }
    Ok(())
}

/// Writes the first `bytes` bytes of the stream of `seed`.
///
/// # Errors
///
/// Those of the writer.
pub fn write(to: &mut impl Write, seed: u64, bytes: u64) -> io::Result<()> {
    stream(seed, bytes, |block| to.write_all(block))
}

/// SHA-256, in hexadecimal, of the first `bytes` bytes of the stream of `seed`.
#[must_use]
pub fn digest(seed: u64, bytes: u64) -> String {
    let mut context = Context::new(&SHA256);
    // The closure cannot fail.
    let _ = stream(seed, bytes, |block| {
        context.update(block);
        Ok(())
    });
    hex(context)
}

/// Reads until the end, or until `limit` bytes are there, and returns their number and their SHA-256.
///
/// # Errors
///
/// Those of the reader.
pub fn consume(from: &mut impl Read, limit: u64) -> io::Result<(u64, String)> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; BLOCK];
    let mut limited = from.take(limit);
    let mut total = 0_u64;
    loop {
        let count = match limited.read(&mut buffer) {
            Ok(0) => return Ok((total, hex(context))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(buffer.get(..count).unwrap_or_default());
        total = total.saturating_add(count as u64);
    }
}

fn hex(context: Context) -> String {
    context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_at_every_length() {
        for bytes in [0, 1, 7, 8, 9, 65_535, 65_536, 65_537, 200_001] {
            let mut sent = Vec::new();
            write(&mut sent, 7, bytes).unwrap();
            assert_eq!(sent.len() as u64, bytes);
            assert_eq!(
                consume(&mut sent.as_slice(), u64::MAX).unwrap(),
                (bytes, digest(7, bytes))
            );
        }
    }

    #[test]
    fn one_flipped_bit_or_another_seed_is_noticed() {
        let mut sent = Vec::new();
        write(&mut sent, 7, 100_000).unwrap();
        sent[77_777] ^= 1;
        assert_ne!(
            consume(&mut sent.as_slice(), u64::MAX).unwrap().1,
            digest(7, 100_000)
        );
        assert_ne!(digest(8, 100_000), digest(7, 100_000));
    }

    #[test]
    fn blocks_of_a_stream_differ() {
        let (mut first, mut second) = ([0; 64], [0; 64]);
        fill(&mut first, 1, 0);
        fill(&mut second, 1, 1);
        assert_ne!(first, second);
    }
}
