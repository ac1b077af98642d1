//! The application: three rooms, their clients at the other end of the UART, and sleep whenever
//! there is nothing to do.

use crate::{
    heap::Free,
    rooms::{self, Bundled, Refused},
    serial::{Port, RECEIVED_BYTES, Serial},
};
use alloc::vec::Vec;
use core::convert::Infallible;
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
/// Fuel that is used before the UART is looked at again.
const POLL_FUEL: u64 = 20_000;

/// Opens the rooms and serves them for ever. `free` is what is left of the heap; `sleep`
/// stops the processor until a time, or until the function that it is given answers true.
///
/// # Errors
///
/// If there is no memory for a room.
pub fn run<C: Clock, P: Port>(
    clock: &C,
    port: P,
    free: Free,
    sleep: impl Fn(Option<Instant>, &mut dyn FnMut() -> bool),
) -> Result<Infallible, Refused> {
    let received = port.received();
    let modules = load(free)?;
    let mut server = Server::new(clock, port, modules);
    server.open_rooms()?;
    loop {
        let wake_at = server.turn()?;
        if !server.link.wants_write(&mut server.host) {
            sleep(wake_at, &mut || !received.is_empty());
        }
    }
}

/// Loads the modules. This is what needs the most of the stack, so it comes before there is a server
/// on it.
///
/// # Errors
///
/// As [`run`].
#[inline(never)]
pub fn load(free: Free) -> Result<Vec<Module>, Refused> {
    // What is promised to a room counts, also what it does not take yet.
    let mut left = free;
    let mut modules = Vec::new();
    for (_, bundled) in ROOMS {
        let (module, rest) = bundled.load_within(&limits(), left)?;
        left = rest;
        modules.push(module);
    }
    Ok(modules)
}

/// The host with its rooms, and the link that their clients come by.
pub struct Server<'a, C, P> {
    host: Host<&'a C, LinkTransport<BUFFER_BYTES>>,
    link: Link<Ready<Serial<P>>, BUFFER_BYTES>,
    modules: Vec<Module>,
}

impl<'a, C: Clock, P: Port> Server<'a, C, P> {
    /// A server without rooms.
    pub fn new(clock: &'a C, port: P, modules: Vec<Module>) -> Self {
        let mut options = LinkOptions::default();
        options.receive_buffer_bytes = RECEIVED_BYTES as u32;
        Self {
            host: Host::new(clock, LinkTransport::new()),
            link: Link::with_options(Ready(Serial(port)), options),
            modules,
        }
    }

    /// Opens the rooms. Not in [`new`](Self::new), so that the server has not to be moved out of a
    /// `Result`: it is large for a stack like this.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn open_rooms(&mut self) -> Result<(), Refused> {
        (0..ROOMS.len()).try_for_each(|i| self.open_room(i))
    }

    /// Reads, works and writes as much as there is, within bounds; answers when to come again.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn turn(&mut self) -> Result<Option<Instant>, Refused> {
        // A UART has no end, and its errors are noise to the link.
        let wake_at = self
            .link
            .poll(&mut self.host, Budget::fuel(POLL_FUEL))
            .unwrap_or_default();
        while let Some(closed) = self.link.poll_closed(&mut self.host) {
            // Its guest has failed, which the other side has been told. Another instance of the
            // same module takes its place.
            if let Some(i) = ROOMS.iter().position(|(id, _)| **id == *closed.id) {
                drop(closed);
                self.open_room(i)?;
            }
        }
        Ok(wake_at)
    }

    fn open_room(&mut self, i: usize) -> Result<(), Refused> {
        let room = self
            .host
            .open(ROOMS[i].0, &self.modules[i])
            .map_err(Refused::Open)?;
        self.link
            .carry(&mut self.host, room)
            .map_err(Refused::Carry)
    }
}

fn limits() -> Limits {
    let mut limits = Limits::small();
    limits.max_message_bytes = MESSAGE_BYTES;
    limits
}
