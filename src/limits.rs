//! A limit on everything.

/// The bounds of a module and of each room made from it.
///
/// A limit that a guest runs into is a [`Fault`](crate::Fault) of that guest (except memory and
/// table growth, which answers −1 as WebAssembly defines it); a limit that a client runs into is an
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
    /// Length of a module. Default 16 MiB, small 128 KiB.
    pub max_module_bytes: usize,
    /// Linear memory of one room. Default 64 MiB, small 64 KiB.
    pub max_memory_bytes: usize,
    /// Elements of all tables of one room together. Default 65,536, small 1,024.
    pub max_table_elements: usize,
    /// The guest's value stack: the interpreter's, where a parameter or a local takes 16 bytes. (A
    /// compiled language keeps its own shadow stack in linear memory.) Default 1 MiB, small 4 KiB.
    pub max_stack_bytes: usize,
    /// Calls within calls; the call of an export is the first. Default 10,000, small 32.
    pub max_recursion_depth: usize,
    /// Fuel that one event may use before it is a fault; one unit is about one simple instruction
    /// of the interpreter. `None` turns metering off: then an endless loop in a guest hangs its
    /// host, so it is for modules that are trusted. Default 100 million, small 1 million.
    pub max_fuel_per_event: Option<u64>,
    /// Fuel after which a guest is paused, so that the host can serve others, to be resumed later.
    /// Default 1 million, small 10,000.
    pub fuel_per_slice: u64,
    /// Length of one message, to and from a room. Default 1 MiB, small 1 KiB.
    pub max_message_bytes: usize,
    /// Events that wait for a busy room. Default 1,024, small 8.
    pub max_inbox_events: usize,
    /// Bytes of the messages that wait for a busy room. Default 4 MiB, small 2 KiB.
    pub max_inbox_bytes: usize,
    /// Messages that a room may send within one event. Default 4,096, small 16.
    pub max_outbox_messages: usize,
    /// Bytes that a room may send within one event. Default 4 MiB, small 4 KiB.
    pub max_outbox_bytes: usize,
    /// Clients of one room at a time. Default 1,024, small 8.
    pub max_clients: usize,
    /// Length of a room's id. Default 256, small 32.
    pub max_room_id_bytes: usize,
}

impl Limits {
    /// Limits for a server: the defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            max_module_bytes: 16 << 20,
            max_memory_bytes: 64 << 20,
            max_table_elements: 65_536,
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
        }
    }

    /// Limits for a microcontroller with some hundred KiB of RAM.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            max_module_bytes: 128 << 10,
            max_memory_bytes: 64 << 10,
            max_table_elements: 1024,
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
        }
    }

    setters! {
        max_module_bytes: usize,
        max_memory_bytes: usize,
        max_table_elements: usize,
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
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}
