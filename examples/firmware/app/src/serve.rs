//! The application: three rooms, whose clients are at the other end of the UART. It sleeps while it
//! is idle.

use crate::{
    heap::Free,
    rooms::{self, Bundled, RoomError},
    serial::{Port, RECEIVED_BYTES, Serial},
};
use alloc::vec::Vec;
use core::convert::Infallible;
#[cfg(feature = "snapshot")]
use stateroom_wasmi_host::SnapshotOptions;
use stateroom_wasmi_host::{Budget, Clock, Host, Instant, Limits, Module};
use stateroom_wasmi_link::{Link, LinkOptions, LinkTransport, Ready, buffer_bytes};

/// The rooms' ids, and their modules.
const ROOMS: [(&str, Bundled); 3] = [
    ("chat", rooms::CHAT),
    ("clock", rooms::CLOCK),
    ("hostile", rooms::HOSTILE),
];
/// Length of the longest message, in bytes.
const MESSAGE_BYTES: usize = 512;
const BUFFER_BYTES: usize = buffer_bytes(MESSAGE_BYTES);
/// Fuel between two polls of the UART.
const POLL_FUEL: u64 = 20_000;

/// Heap for a room on its way to the other end of the UART or from it.
#[cfg(feature = "snapshot")]
const TRANSFER_BYTES: usize = 24 << 10;

/// Opens the rooms and serves them without end. `free` is the free heap; `sleep` stops the
/// processor until a time, or until the function passed to it returns true.
///
/// # Errors
///
/// If there is no memory for a room.
pub fn run<C: Clock, P: Port>(
    clock: &C,
    port: P,
    free: Free,
    sleep: impl Fn(Option<Instant>, &mut dyn FnMut() -> bool),
) -> Result<Infallible, RoomError> {
    let received = port.received();
    let modules = load(free)?;
    let mut server = Server::new(clock, port, modules);
    server.open_rooms()?;
    loop {
        let wake_at = server.poll()?;
        if !server.link.wants_write(&mut server.host) {
            sleep(wake_at, &mut || !received.is_empty());
        }
    }
}

/// Loads the modules. This needs the most stack, so it runs before the server is on the stack.
///
/// # Errors
///
/// As [`run`].
#[inline(never)]
pub fn load(free: Free) -> Result<Vec<Module>, RoomError> {
    // Each room's whole estimate is reserved, even what it does not use yet.
    let mut unreserved = free;
    #[cfg(feature = "snapshot")]
    {
        unreserved = unreserved.without(TRANSFER_BYTES)?;
    }
    let mut modules = Vec::new();
    for (_, bundled) in ROOMS {
        let (module, rest) = bundled.load_within(&limits(), unreserved)?;
        unreserved = rest;
        modules.push(module);
    }
    Ok(modules)
}

/// The host with its rooms, and the link to their clients.
pub struct Server<'a, C, P> {
    host: Host<&'a C, LinkTransport<BUFFER_BYTES>>,
    link: Link<Ready<Serial<P>>, BUFFER_BYTES>,
    modules: Vec<Module>,
}

impl<'a, C: Clock, P: Port> Server<'a, C, P> {
    /// A server without rooms.
    pub fn new(clock: &'a C, port: P, modules: Vec<Module>) -> Self {
        let options = LinkOptions::new().receive_buffer_bytes(RECEIVED_BYTES as u32);
        #[cfg(feature = "snapshot")]
        let options = options.transfer_heap_bytes(TRANSFER_BYTES);
        Self {
            host: Host::new(clock, LinkTransport::new()),
            link: Link::with_options(Ready(Serial(port)), options),
            modules,
        }
    }

    /// Opens the rooms. Not part of [`new`](Self::new), so that the server, which is large for this
    /// stack, is not moved out of a `Result`.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn open_rooms(&mut self) -> Result<(), RoomError> {
        (0..ROOMS.len()).try_for_each(|i| self.open_room(i))
    }

    /// Reads, runs rooms and writes, within bounds; returns when to poll again.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn poll(&mut self) -> Result<Option<Instant>, RoomError> {
        // A UART never closes, and the link recovers from its errors.
        let wake_at = self
            .link
            .poll(&mut self.host, Budget::fuel(POLL_FUEL))
            .unwrap_or_default();
        while let Some(closed) = self.link.poll_closed(&mut self.host) {
            // Its guest has failed and the bridge knows: replace it with a new instance.
            if let Some(i) = ROOMS.iter().position(|(id, _)| **id == *closed.id) {
                drop(closed);
                self.open_room(i)?;
            }
        }
        #[cfg(feature = "snapshot")]
        self.move_rooms();
        Ok(wake_at)
    }

    /// Takes in a room that has come, in the place of one that has gone.
    #[cfg(feature = "snapshot")]
    fn move_rooms(&mut self) {
        drop(self.link.poll_moved());
        let Some(info) = self.link.received_room() else {
            return;
        };
        let place = ROOMS.iter().position(|(id, _)| *id == info.room_id);
        let Some(module) = place.and_then(|i| self.modules.get(i)) else {
            self.link.refuse_load("this firmware has no place for it");
            return;
        };
        // A server's limits are others. The bridge is told why, if the room cannot be loaded.
        let options = SnapshotOptions::new().other_limits(true);
        let _ = self.link.load(&mut self.host, module, options);
    }

    fn open_room(&mut self, i: usize) -> Result<(), RoomError> {
        let room = self
            .host
            .open(ROOMS[i].0, &self.modules[i])
            .map_err(RoomError::Open)?;
        self.link
            .add_room(&mut self.host, room)
            .map_err(RoomError::AddRoom)
    }
}

fn limits() -> Limits {
    let mut limits = Limits::small();
    limits.max_message_bytes = MESSAGE_BYTES;
    limits
}
