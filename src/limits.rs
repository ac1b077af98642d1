//! A limit on everything.

use core::fmt;

/// The limits of a module and of each of its rooms.
///
/// A module that exceeds a limit before any of its code runs is refused with a
/// [`LoadError`](crate::LoadError). A guest that exceeds one fails with a [`Fault`](crate::Fault),
/// except for memory and table growth, which returns −1 as WebAssembly defines it. A client that exceeds a limit gets an
/// [`EventError`](crate::EventError). Neither harms another room.
///
/// Start from [`Limits::new`] (a server) or [`Limits::small`] (a microcontroller) and change what
/// you must:
///
/// ```
/// use stateroom_wasmi_host::Limits;
///
/// const LIMITS: Limits = Limits::new().max_memory_bytes(4 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Length of a module in bytes. Default 16 MiB, small 128 KiB.
    pub max_module_bytes: usize,
    /// Linear memory of one room in bytes, all of its memories together. Default 64 MiB, small 64 KiB.
    pub max_memory_bytes: usize,
    /// Elements of all tables of one room in total. Default 65,536, small 1,024.
    pub max_table_elements: usize,
    /// Heap that one room takes for the functions, globals, exports, segments and table elements that
    /// its module declares, in bytes: an upper bound, of which a compiled module takes some ten KiB. A
    /// module whose rooms would take more is refused. Default 16 MiB, small 64 KiB.
    pub max_instance_bytes: usize,
    /// Locals that a function may declare: each call sets all of them to zero, which costs no fuel. A
    /// module with a function that declares more is refused. Default 800, small 200.
    pub max_function_locals: usize,
    /// The interpreter's value stack of one room in bytes; a parameter or a local takes 16. (A
    /// compiled language keeps its own shadow stack in linear memory.) Default 1 MiB, small 4 KiB.
    pub max_stack_bytes: usize,
    /// Depth of nested calls; the call of an export is the first. Default 10,000, small 32.
    pub max_recursion_depth: usize,
    /// Fuel that one event may use; more is a fault. One unit is about one simple instruction of the
    /// interpreter. `None` turns metering off: an endless loop in a guest then hangs its host, so
    /// use it for trusted modules only. Default 100 million, small 1 million.
    pub max_fuel_per_event: Option<u64>,
    /// Fuel after which a guest is paused and other rooms have their turn.
    /// Default 1 million, small 10,000.
    pub fuel_per_slice: u64,
    /// Length of one message in bytes, to and from a room. Default 1 MiB, small 1 KiB.
    pub max_message_bytes: usize,
    /// Events that wait for a busy room; at least 2. Default 1,024, small 8.
    pub max_inbox_events: usize,
    /// Bytes of the messages that wait for a busy room; at least
    /// [`max_message_bytes`](Self::max_message_bytes). Default 4 MiB, small 2 KiB.
    pub max_inbox_bytes: usize,
    /// Messages that a room may send within one event. Default 4,096, small 16.
    pub max_outbox_messages: usize,
    /// Bytes that a room may send within one event. Default 4 MiB, small 4 KiB.
    pub max_outbox_bytes: usize,
    /// Connected clients of one room. Default 1,024, small 8.
    pub max_clients: usize,
    /// Length of a room's id in bytes. Default 256, small 32.
    pub max_room_id_bytes: usize,
    /// Bytes that a guest may print to the log within one event (feature `log`), after what must be
    /// is [escaped](crate::Escaped); each line counts 64 more. What is beyond is dropped, with a note
    /// that says how much. Default 16 KiB, small 1 KiB.
    pub max_log_bytes_per_event: usize,
    /// The same for each second of room time: a guest that printed as much as one event may goes on at
    /// this rate. Default 16 KiB, small 1 KiB.
    pub max_log_bytes_per_second: usize,
}

impl Limits {
    /// Limits for a server: the defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            max_module_bytes: 16 << 20,
            max_memory_bytes: 64 << 20,
            max_table_elements: 65_536,
            max_instance_bytes: 16 << 20,
            max_function_locals: 800,
            max_stack_bytes: 1 << 20,
            max_recursion_depth: 10_000,
            max_fuel_per_event: Some(100_000_000),
            fuel_per_slice: 1_000_000,
            max_message_bytes: 1 << 20,
            max_inbox_events: 1024,
            max_inbox_bytes: 4 << 20,
            max_outbox_messages: 4096,
            max_outbox_bytes: 4 << 20,
            max_clients: 1024,
            max_room_id_bytes: 256,
            max_log_bytes_per_event: 16 << 10,
            max_log_bytes_per_second: 16 << 10,
        }
    }

    /// Limits for a microcontroller with some hundred KiB of RAM.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            max_module_bytes: 128 << 10,
            max_memory_bytes: 64 << 10,
            max_table_elements: 1024,
            max_instance_bytes: 64 << 10,
            max_function_locals: 200,
            max_stack_bytes: 4 << 10,
            max_recursion_depth: 32,
            max_fuel_per_event: Some(1_000_000),
            fuel_per_slice: 10_000,
            max_message_bytes: 1 << 10,
            max_inbox_events: 8,
            max_inbox_bytes: 2 << 10,
            max_outbox_messages: 16,
            max_outbox_bytes: 4 << 10,
            max_clients: 8,
            max_room_id_bytes: 32,
            max_log_bytes_per_event: 1 << 10,
            max_log_bytes_per_second: 1 << 10,
        }
    }

    /// Whether the limits can be kept together. Loading a module checks this.
    ///
    /// # Errors
    ///
    /// If an event that one limit allows could never be accepted because of another.
    pub const fn check(&self) -> Result<(), LimitsError> {
        if self.max_inbox_bytes < self.max_message_bytes {
            return Err(LimitsError::InboxBytes {
                max_inbox_bytes: self.max_inbox_bytes,
                max_message_bytes: self.max_message_bytes,
            });
        }
        if self.max_inbox_events < LimitsError::MIN_INBOX_EVENTS {
            return Err(LimitsError::InboxEvents {
                max_inbox_events: self.max_inbox_events,
            });
        }
        Ok(())
    }

    setters! {
        max_module_bytes: usize,
        max_memory_bytes: usize,
        max_table_elements: usize,
        max_instance_bytes: usize,
        max_function_locals: usize,
        max_stack_bytes: usize,
        max_recursion_depth: usize,
        max_fuel_per_event: Option<u64>,
        fuel_per_slice: u64,
        max_message_bytes: usize,
        max_inbox_events: usize,
        max_inbox_bytes: usize,
        max_outbox_messages: usize,
        max_outbox_bytes: usize,
        max_clients: usize,
        max_room_id_bytes: usize,
        max_log_bytes_per_event: usize,
        max_log_bytes_per_second: usize,
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// The limits of a host. Those of each room are the [`Limits`] of its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostLimits {
    /// Open rooms. Default 10,000.
    pub max_rooms: usize,
}

impl HostLimits {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_rooms: 10_000 }
    }

    setters! { max_rooms: usize }
}

impl Default for HostLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// Why [`Limits`] contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitsError {
    /// A message of the greatest length would never fit into the inbox.
    InboxBytes {
        /// [`Limits::max_inbox_bytes`].
        max_inbox_bytes: usize,
        /// [`Limits::max_message_bytes`].
        max_message_bytes: usize,
    },
    /// The inbox is too small for a client that reconnects, which is two events, or for a client
    /// that connects to a room whose initialisation waits.
    InboxEvents {
        /// [`Limits::max_inbox_events`].
        max_inbox_events: usize,
    },
}

impl LimitsError {
    const MIN_INBOX_EVENTS: usize = 2;
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InboxBytes {
                max_inbox_bytes,
                max_message_bytes,
            } => write!(
                f,
                "max_inbox_bytes ({max_inbox_bytes}) must be at least max_message_bytes \
                 ({max_message_bytes})"
            ),
            Self::InboxEvents { max_inbox_events } => write!(
                f,
                "max_inbox_events ({max_inbox_events}) must be at least {}",
                Self::MIN_INBOX_EVENTS
            ),
        }
    }
}

impl core::error::Error for LimitsError {}
