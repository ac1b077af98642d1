//! What stands around the state of a room: a header, what the snapshot says of itself, compression.

use super::{
    EngineVersion, ModuleHash, SnapshotError, SnapshotInfo, StateHash,
    bytes::{Malformed, Reader, Writer},
};
use crate::{limits::Limits, time::Instant};
use alloc::{borrow::Cow, vec::Vec};
use core::time::Duration;
use sha2::{Digest, Sha256};

/// What every snapshot begins with.
const MAGIC: [u8; 4] = *b"SRSN";

/// The version of the format.
pub(super) const FORMAT: u8 = 1;

const RAW: u8 = 0;
const LZ4: u8 = 1;

/// A snapshot whose state has not been looked at yet.
pub(crate) struct Envelope<'a> {
    pub(crate) info: SnapshotInfo,
    compression: u8,
    /// What the hash is of, besides the state.
    info_bytes: &'a [u8],
    state: &'a [u8],
}

/// Writes a snapshot: what it says of itself, and the encoded state of a room, compressed if that
/// makes it shorter.
///
/// When it was saved is no part of the room, so the state's hash does not cover it; a checksum does.
pub(crate) fn seal(info: &[u8], state: &[u8], saved_at: Duration) -> Vec<u8> {
    let compressed = lz4_flex::block::compress(state);
    let is_shorter = compressed.len() < state.len();
    let (compression, payload) = if is_shorter {
        (LZ4, compressed.as_slice())
    } else {
        (RAW, state)
    };
    let mut snapshot = Vec::with_capacity(HEADER + info.len() + 5 + payload.len());
    snapshot.extend_from_slice(&MAGIC);
    snapshot.extend_from_slice(&[FORMAT, compression]);
    let state_hash = StateHash::of(info, state);
    snapshot.extend_from_slice(&state_hash.0);
    snapshot.extend_from_slice(&checksum(state_hash, saved_at));
    let mut writer = Writer::new(&mut snapshot);
    writer.duration(saved_at);
    writer.raw(info);
    if is_shorter {
        writer.size(state.len());
    }
    writer.raw(payload);
    snapshot
}

/// Bytes before what a snapshot says of itself, and more than when it was saved takes.
const HEADER: usize = MAGIC.len() + 2 + size_of::<StateHash>() + CHECKSUM + 16;

const CHECKSUM: usize = 4;

/// Of what the state's hash does not cover.
fn checksum(state_hash: StateHash, saved_at: Duration) -> [u8; CHECKSUM] {
    let mut bytes = Vec::from(state_hash.0);
    Writer::new(&mut bytes).duration(saved_at);
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(&bytes));
    [a, b, c, d]
}

impl<'a> Envelope<'a> {
    pub(crate) fn open(snapshot: &'a [u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader::new(snapshot);
        if reader.array() != Ok(MAGIC) {
            return Err(SnapshotError::NotASnapshot);
        }
        match reader.byte()? {
            FORMAT => {}
            version => return Err(SnapshotError::Format(version)),
        }
        let compression = reader.byte()?;
        let state_hash = StateHash(reader.array()?);
        let expected: [u8; CHECKSUM] = reader.array()?;
        let saved_at = reader.duration()?;
        if checksum(state_hash, saved_at) != expected {
            return Err(SnapshotError::Damaged);
        }
        let info_and_state = reader.rest();
        let mut reader = Reader::new(info_and_state);
        let mut info = SnapshotInfo::decode(&mut reader, state_hash, saved_at)?;
        let state = reader.rest();
        info.state_bytes = match compression {
            LZ4 => Reader::new(state).size()?,
            _ => state.len(),
        };
        Ok(Self {
            info,
            compression,
            info_bytes: &info_and_state[..info_and_state.len() - state.len()],
            state,
        })
    }

    /// The encoded state, if it is not damaged and at most so long.
    pub(crate) fn state(&self, max_bytes: usize) -> Result<Cow<'a, [u8]>, SnapshotError> {
        let mut reader = Reader::new(self.state);
        let state = match self.compression {
            RAW => Cow::Borrowed(reader.rest()),
            LZ4 => {
                let len = reader.size()?;
                let compressed = reader.rest();
                if len > compressed.len().saturating_mul(MAX_EXPANSION) {
                    return Err(SnapshotError::Damaged);
                }
                if len > max_bytes {
                    let (what, limit) = ("bytes of state", max_bytes);
                    return Err(SnapshotError::TooMany { what, limit });
                }
                let state = lz4_flex::block::decompress(compressed, len);
                state.map_err(|_| SnapshotError::Damaged)?.into()
            }
            _ => return Err(SnapshotError::Damaged),
        };
        if StateHash::of(self.info_bytes, &state) != self.info.state_hash {
            return Err(SnapshotError::Damaged);
        }
        Ok(state)
    }
}

/// LZ4 makes at most this many bytes of one.
const MAX_EXPANSION: usize = 255;

impl SnapshotInfo {
    pub(crate) fn encode(&self, writer: &mut Writer<'_>) {
        writer.raw(&self.engine.wasmi);
        writer.byte(self.engine.revision);
        writer.raw(&self.module.0);
        writer.sized(self.room_id.as_bytes());
        writer.number(self.now.as_nanos());
        writer.duration(self.unix_time_at_zero);
        self.limits.encode(writer);
    }

    fn decode(
        reader: &mut Reader<'_>,
        state_hash: StateHash,
        saved_at: Duration,
    ) -> Result<Self, Malformed> {
        Ok(Self {
            engine: EngineVersion {
                wasmi: reader.array()?,
                revision: reader.byte()?,
            },
            module: ModuleHash(reader.array()?),
            room_id: reader.text()?.into(),
            now: Instant::from_nanos(reader.number()?),
            unix_time_at_zero: reader.duration()?,
            limits: Limits::decode(reader)?,
            state_hash,
            state_bytes: 0,
            saved_at: (!saved_at.is_zero()).then_some(saved_at),
        })
    }
}
