//! Snapshots read and written by `docs/snapshots.md`, without the crate's own code. The fuzz target
//! `snapshot` uses it, too.

use sha2::{Digest, Sha256};

/// The parts of a snapshot, by `docs/snapshots.md`, read and written without the crate's code.
pub struct Unsealed {
    pub info: Vec<u8>,
    pub state: Vec<u8>,
}

/// Bytes before the state hash's checksum.
const HEADER: usize = 22;

impl Unsealed {
    pub fn of(snapshot: &[u8]) -> Self {
        let mut at = HEADER + 4;
        for _ in 0..2 {
            number(snapshot, &mut at);
        }
        let info_at = at;
        at += 4 + 32;
        let id = number(snapshot, &mut at) as usize;
        at += id;
        for _ in 0..3 {
            number(snapshot, &mut at);
        }
        at += 1;
        let mask = number(snapshot, &mut at);
        for _ in 0..mask.count_ones() {
            number(snapshot, &mut at);
        }
        let info = snapshot[info_at..at].to_vec();
        let state = match snapshot[5] {
            0 => snapshot[at..].to_vec(),
            _ => {
                let len = number(snapshot, &mut at) as usize;
                lz4_flex::block::decompress(&snapshot[at..], len).expect("it is LZ4")
            }
        };
        Self { info, state }
    }

    /// A snapshot of this, uncompressed and with the right hashes, of which nobody knows when it was saved.
    pub fn sealed(&self) -> Vec<u8> {
        let hash = Sha256::new()
            .chain_update(&self.info)
            .chain_update(&self.state)
            .finalize();
        let saved_at = [0, 0];
        let check = Sha256::new()
            .chain_update(&hash[..16])
            .chain_update(saved_at)
            .finalize();
        let header = [b"SRSN\x01\x00", &hash[..16], &check[..4], &saved_at].concat();
        [&header[..], &self.info, &self.state].concat()
    }
}

fn number(bytes: &[u8], at: &mut usize) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}
