//! Memory that is all zero, which most of a guest's is.

/// Whether all of these bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Some hundred bytes at a time without a way out, so that the compiler makes vectors of it.
    bytes.chunks(256).all(|chunk| {
        let (words, rest) = chunk.as_chunks::<16>();
        let bits = words
            .iter()
            .fold(0, |bits, word| bits | u128::from_ne_bytes(*word));
        bits == 0 && rest.iter().all(|byte| *byte == 0)
    })
}
