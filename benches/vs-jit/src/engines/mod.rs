//! Engines without a host: the same minimal loop around each delivers events of ABI 0.2, so that
//! engines are compared and not the hosts built on them.
//!
//! As in the JIT host, each message gets a buffer from the guest's allocator, which is freed
//! afterwards. There are no limits and no fuel, and a guest that fails is a panic.

#[cfg(feature = "pulley")]
mod pulley;
#[cfg(feature = "tinywasm")]
mod tinywasm;
#[cfg(feature = "wasm3")]
mod wasm3;
mod wasmi;

#[cfg(feature = "pulley")]
pub use self::pulley::Pulley;
#[cfg(feature = "tinywasm")]
pub use self::tinywasm::TinyWasm;
#[cfg(feature = "wasm3")]
pub use self::wasm3::Wasm3;
pub use self::wasmi::Wasmi;

use crate::runtime::{Event, Payload, Recipient, Room};
use anyhow::Result;

/// An instance of a guest in one of the engines.
trait Guest {
    fn malloc(&mut self, len: u32) -> Result<u32>;
    fn free(&mut self, ptr: u32, len: u32) -> Result<()>;
    fn write(&mut self, ptr: u32, bytes: &[u8]) -> Result<()>;
    fn initialize(&mut self, ptr: u32, len: u32) -> Result<()>;
    fn connect(&mut self, client: u32) -> Result<()>;
    fn disconnect(&mut self, client: u32) -> Result<()>;
    fn timer(&mut self) -> Result<()>;
    fn message(&mut self, client: u32, ptr: u32, len: u32) -> Result<()>;
    fn binary(&mut self, client: u32, ptr: u32, len: u32) -> Result<()>;
}

struct MinimalRoom<G>(G);

impl<G: Guest> MinimalRoom<G> {
    fn open(guest: G, id: &str) -> Result<Self> {
        let mut room = Self(guest);
        room.deliver(id.as_bytes(), G::initialize)?;
        Ok(room)
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        call: impl FnOnce(&mut G, u32, u32) -> Result<()>,
    ) -> Result<()> {
        let Self(guest) = self;
        let len = u32::try_from(bytes.len())?;
        let ptr = guest.malloc(len)?;
        guest.write(ptr, bytes)?;
        call(guest, ptr, len)?;
        guest.free(ptr, len)
    }
}

impl<G: Guest> Room for MinimalRoom<G> {
    fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::Connect(client) => self.0.connect(client),
            Event::Disconnect(client) => self.0.disconnect(client),
            Event::Message(client, Payload::Text(text)) => self
                .deliver(text.as_bytes(), |guest, ptr, len| {
                    guest.message(client, ptr, len)
                }),
            Event::Message(client, Payload::Binary(bytes)) => {
                self.deliver(bytes, |guest, ptr, len| guest.binary(client, ptr, len))
            }
            Event::Timer => self.0.timer(),
        }
        .expect("the guests under comparison do not fail");
    }
}

/// Decodes a recipient of ABI 0.2.
fn recipient(number: i32) -> Recipient {
    match number {
        0 => Recipient::Everyone,
        1.. => Recipient::Client(number.unsigned_abs()),
        _ => Recipient::EveryoneExcept(number.unsigned_abs()),
    }
}

/// The payload that a guest sends from its memory.
fn payload(memory: &[u8], ptr: u32, len: u32, is_text: bool) -> Payload<'_> {
    let bytes = &memory[ptr as usize..][..len as usize];
    match is_text {
        true => Payload::Text(std::str::from_utf8(bytes).expect("texts are UTF-8")),
        false => Payload::Binary(bytes),
    }
}
