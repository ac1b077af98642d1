//! Snapshots of rooms: what stands around the state, what can be read of it without the module, and
//! errors. `docs/snapshots.md` is the format.

use crate::{
    bytes::{Malformed, Reader, Writer},
    error::OpenError,
    limits::Limits,
    time::Instant,
};
use alloc::{borrow::Cow, string::String, vec::Vec};
use core::{error::Error, fmt, time::Duration};
use sha2::{Digest, Sha256};

/// What every snapshot begins with.
const MAGIC: [u8; 4] = *b"SRSN";
/// The version of the format.
const FORMAT: u8 = 1;

const RAW: u8 = 0;
const LZ4: u8 = 1;

/// The interpreter that a room ran on. Another may use another amount of fuel for the same event, and
/// fuel decides when an event fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EngineVersion {
    /// The version of wasmi: major, minor, patch.
    pub wasmi: [u8; 3],
    /// Counts changes of this crate to what guests can observe, their fuel included.
    pub revision: u8,
}

impl EngineVersion {
    /// The one of this crate.
    pub const CURRENT: Self = Self {
        wasmi: [2, 0, 0],
        revision: 1,
    };
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.wasmi;
        write!(
            f,
            "wasmi {major}.{minor}.{patch} revision {}",
            self.revision
        )
    }
}

impl fmt::Debug for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hash of a room's state, by which replays and copies are compared: equal states have equal hashes,
/// on every architecture. It is the first half of a SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct StateHash(pub [u8; 16]);

impl StateHash {
    /// Of a room's encoded state, and what its snapshot says of itself.
    pub(crate) fn of(info: &[u8], state: &[u8]) -> Self {
        let digest = Sha256::new()
            .chain_update(info)
            .chain_update(state)
            .finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The SHA-256 of a module's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleHash(pub [u8; 32]);

impl ModuleHash {
    /// The hash of a module in the binary format.
    #[must_use]
    pub fn of(wasm: &[u8]) -> Self {
        Self(Sha256::digest(wasm).into())
    }
}

impl fmt::Display for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// What a snapshot says without its module: which module it needs, and under which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The interpreter that the room ran on.
    pub engine: EngineVersion,
    /// The hash of the room's module.
    pub module: ModuleHash,
    /// The limits that the room ran under. What a guest can observe of them must be the same where it
    /// is loaded ([`SnapshotError::Limits`]).
    pub limits: Limits,
    /// The room's id.
    pub room_id: String,
    /// Room time when it was saved.
    pub now: Instant,
    /// Wall time when the room was created, since the Unix epoch; zero if its host did not know.
    pub unix_time_at_zero: Duration,
    /// The hash of the room's state.
    pub state_hash: StateHash,
}

impl SnapshotInfo {
    /// Reads what a snapshot says. That the rest of it is not damaged is found out when it is loaded.
    ///
    /// # Errors
    ///
    /// If the bytes are no snapshot, or one of a later format, or are damaged here.
    pub fn read(snapshot: &[u8]) -> Result<Self, SnapshotError> {
        Ok(Parts::read(snapshot)?.info)
    }
}

/// Why a room cannot be saved, now or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaveError {
    /// The host has no such room.
    UnknownRoom,
    /// The room is closed.
    Closed,
    /// The guest is in the middle of an event, or one is being undone:
    /// [`resume`](crate::Room::resume) the room until it is not. To hibernate, no event may wait either.
    Busy,
    /// The room has outputs that were not taken. They are not part of a snapshot.
    OutputsWaiting,
    /// The room is [unmanaged](crate::Room::unmanaged): its driver has a part of its state.
    Unmanaged,
    /// The module was not loaded for it ([`LoadOptions::snapshots`](crate::LoadOptions::snapshots)).
    NotInstrumented,
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownRoom => "there is no such room",
            Self::Closed => "the room is closed",
            Self::Busy => "the room is busy with an event",
            Self::OutputsWaiting => "the room has outputs that were not sent yet",
            Self::Unmanaged => "the room is unmanaged: its driver has a part of its state",
            Self::NotInstrumented => NOT_INSTRUMENTED,
        })
    }
}

impl Error for SaveError {}

const NOT_INSTRUMENTED: &str = "the module was not loaded for snapshots";

/// Why a room cannot be loaded from a snapshot.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes are no snapshot.
    NotASnapshot,
    /// The snapshot's format is of this later version.
    Format(u8),
    /// The bytes were changed or are incomplete, or were never written by this crate.
    Damaged,
    /// The room ran on another version of the interpreter, on which its fuel may differ.
    Engine(EngineVersion),
    /// The room has another module, of this hash.
    Module(ModuleHash),
    /// The room ran under another limit that its guest can observe. See
    /// [`SnapshotOptions::other_limits`].
    Limits {
        /// The name of a limit that differs.
        name: &'static str,
        /// What it was; [`u64::MAX`] if there was none.
        saved: u64,
        /// What the module was loaded with.
        loaded: u64,
    },
    /// The room has more of something than the module's limits allow.
    TooMany {
        /// Of what, such as `clients`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The module was loaded with another [`PayloadBuffer`](crate::PayloadBuffer).
    PayloadBuffer,
    /// The module was not loaded for it ([`LoadOptions::snapshots`](crate::LoadOptions::snapshots)).
    NotInstrumented,
    /// The host cannot open the room.
    Open(OpenError),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASnapshot => f.write_str("this is not a snapshot of a room"),
            Self::Format(version) => write!(
                f,
                "the snapshot has format {version}, and only {FORMAT} is known"
            ),
            Self::Damaged => f.write_str("the snapshot is damaged"),
            Self::Engine(engine) => write!(
                f,
                "the room ran on {engine}, and this is {}",
                EngineVersion::CURRENT
            ),
            Self::Module(hash) => write!(f, "the room has another module, of SHA-256 {hash}"),
            Self::Limits {
                name,
                saved,
                loaded,
            } => {
                write!(f, "the room ran with {name} ")?;
                write_limit(f, *saved)?;
                f.write_str(", and the module was loaded with ")?;
                write_limit(f, *loaded)
            }
            Self::TooMany { what, limit } => {
                write!(f, "the room has more {what} than the limit of {limit}")
            }
            Self::PayloadBuffer => {
                f.write_str("the module was loaded with another option for its payload buffer")
            }
            Self::NotInstrumented => f.write_str(NOT_INSTRUMENTED),
            Self::Open(error) => error.fmt(f),
        }
    }
}

fn write_limit(f: &mut fmt::Formatter<'_>, limit: u64) -> fmt::Result {
    match limit {
        u64::MAX => f.write_str("unlimited"),
        _ => write!(f, "{limit}"),
    }
}

impl Error for SnapshotError {}

impl From<Malformed> for SnapshotError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

impl From<OpenError> for SnapshotError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// How a room is loaded from a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotOptions {
    /// Whether the room may go on under the limits of the module where they are not those that it ran
    /// under. What it has must be within them in any case. A guest may observe the difference, so that
    /// a replay of what it did before would not do the same. Default false.
    pub other_limits: bool,
}

impl SnapshotOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            other_limits: false,
        }
    }

    setters! { other_limits: bool }
}

/// The parts of a snapshot.
pub(crate) struct Parts<'a> {
    pub(crate) info: SnapshotInfo,
    compression: u8,
    /// What the hash is of, besides the state.
    info_bytes: &'a [u8],
    state: &'a [u8],
}

/// Writes a snapshot: what it says of itself, and the encoded state of a room, compressed if that
/// makes it shorter.
pub(crate) fn seal(info: &[u8], state: &[u8]) -> Vec<u8> {
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
    snapshot.extend_from_slice(&StateHash::of(info, state).0);
    let mut writer = Writer::new(&mut snapshot);
    writer.raw(info);
    if is_shorter {
        writer.size(state.len());
    }
    writer.raw(payload);
    snapshot
}

/// Bytes before what a snapshot says of itself.
const HEADER: usize = MAGIC.len() + 2 + size_of::<StateHash>();

impl<'a> Parts<'a> {
    pub(crate) fn read(snapshot: &'a [u8]) -> Result<Self, SnapshotError> {
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
        let info = SnapshotInfo::decode(&mut reader, state_hash)?;
        let state = reader.rest();
        Ok(Self {
            info,
            compression,
            info_bytes: &snapshot[HEADER..snapshot.len() - state.len()],
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
                if len > max_bytes.min(compressed.len().saturating_mul(MAX_EXPANSION)) {
                    return Err(SnapshotError::Damaged);
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

    fn decode(reader: &mut Reader<'_>, state_hash: StateHash) -> Result<Self, Malformed> {
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
        })
    }
}

/// A limit as a number. None is the greatest.
trait Limit: Sized {
    fn to_number(self) -> u64;
    fn from_number(number: u64) -> Option<Self>;
}

impl Limit for usize {
    fn to_number(self) -> u64 {
        self as u64
    }

    fn from_number(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl Limit for u64 {
    fn to_number(self) -> u64 {
        self
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl Limit for Option<u64> {
    fn to_number(self) -> u64 {
        self.unwrap_or(u64::MAX)
    }

    fn from_number(number: u64) -> Option<Self> {
        Some((number < u64::MAX).then_some(number))
    }
}

/// All limits, in the order of the format; those that a guest can observe are marked.
macro_rules! limits {
    ($($name:ident $(: $observable:ident)?),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        const OBSERVABLE: &[bool] = &[$(false $(|| stringify!($observable).len() > 0)?),*];

        fn numbers(limits: &Limits) -> [u64; NAMES.len()] {
            let Limits { $($name),* } = *limits;
            [$($name.to_number()),*]
        }

        fn from_numbers(numbers: &[u64; NAMES.len()]) -> Option<Limits> {
            let mut numbers = numbers.iter();
            Some(Limits { $($name: Limit::from_number(*numbers.next()?)?),* })
        }
    };
}

limits! {
    max_module_bytes,
    max_memory_bytes: observable,
    max_table_elements: observable,
    max_instance_bytes,
    max_function_locals,
    max_stack_bytes: observable,
    max_recursion_depth: observable,
    max_fuel_per_event: observable,
    fuel_per_slice,
    max_message_bytes: observable,
    max_inbox_events,
    max_inbox_bytes,
    max_outbox_messages: observable,
    max_outbox_bytes: observable,
    max_clients,
    max_room_id_bytes,
    max_log_bytes_per_event,
    max_log_bytes_per_second,
}

impl Limits {
    /// # Errors
    ///
    /// If a guest could observe that these limits are not those that it ran under.
    pub(crate) fn check_same_for_guest(&self, saved: &Self) -> Result<(), SnapshotError> {
        let all = NAMES.iter().zip(OBSERVABLE);
        for ((name, observable), (saved, loaded)) in
            all.zip(numbers(saved).into_iter().zip(numbers(self)))
        {
            if *observable && saved != loaded {
                return Err(SnapshotError::Limits {
                    name,
                    saved,
                    loaded,
                });
            }
        }
        Ok(())
    }

    /// The limits that are not the default, or not the small one, whichever are fewer.
    fn encode(&self, writer: &mut Writer<'_>) {
        let numbers = numbers(self);
        let differences = |base: &[u64]| {
            (0..numbers.len())
                .filter(|i| numbers[*i] != base[*i])
                .fold(0_u64, |mask, i| mask | 1 << i)
        };
        let masks = BASES.map(|base| differences(&self::numbers(&base)));
        let is_small = masks[1].count_ones() < masks[0].count_ones();
        let mask = masks[usize::from(is_small)];
        writer.flag(is_small);
        writer.number(mask);
        for (i, number) in numbers.iter().enumerate() {
            if mask >> i & 1 == 1 {
                writer.number(*number);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut numbers = numbers(&BASES[usize::from(reader.flag()?)]);
        let mask = reader.number()?;
        if mask >> numbers.len() != 0 {
            return Err(Malformed);
        }
        for (i, number) in numbers.iter_mut().enumerate() {
            if mask >> i & 1 == 1 {
                *number = reader.number()?;
            }
        }
        from_numbers(&numbers).ok_or(Malformed)
    }
}

/// What limits are compared with, to store the differences.
const BASES: [Limits; 2] = [Limits::new(), Limits::small()];
