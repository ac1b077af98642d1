//! A UART as `embedded-io` knows it, from the little that a board has to tell.

use core::{cell::RefCell, convert::Infallible};
use critical_section::Mutex;
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use heapless::Deque;

/// What a board has to tell of its UART.
pub trait Port {
    /// What its interrupt has received.
    fn received(&self) -> &'static Received;

    /// Whether it takes a byte at once.
    fn can_send(&self) -> bool;

    /// Sends a byte, which it must be able to.
    fn send(&mut self, byte: u8);
}

/// How many bytes may wait for the application: as many as come in while a guest has its slice.
pub const RECEIVED_BYTES: usize = 512;

/// Bytes on their way from an interrupt to the application. What comes when it is full is lost; the
/// frames of the link tell that something is missing.
pub struct Received(Mutex<RefCell<Deque<u8, RECEIVED_BYTES>>>);

impl Received {
    pub const fn empty() -> Self {
        Self(Mutex::new(RefCell::new(Deque::new())))
    }

    /// Called by the interrupt.
    pub fn push(&self, byte: u8) {
        critical_section::with(|cs| {
            let _ = self.0.borrow_ref_mut(cs).push_back(byte);
        });
    }

    pub fn is_empty(&self) -> bool {
        critical_section::with(|cs| self.0.borrow_ref(cs).is_empty())
    }

    fn pop(&self) -> Option<u8> {
        critical_section::with(|cs| self.0.borrow_ref_mut(cs).pop_front())
    }
}

/// The UART of a board.
pub struct Serial<P>(pub P);

impl<P: Port> ErrorType for Serial<P> {
    type Error = Infallible;
}

impl<P: Port> ReadReady for Serial<P> {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!self.0.received().is_empty())
    }
}

impl<P: Port> Read for Serial<P> {
    /// Waits for the first byte, which has come already where `read_ready` was asked.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let mut len = 0;
        while len < buffer.len() {
            match self.0.received().pop() {
                Some(byte) => buffer[len] = byte,
                None if len > 0 => break,
                None => continue,
            }
            len += 1;
        }
        Ok(len)
    }
}

impl<P: Port> WriteReady for Serial<P> {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.0.can_send())
    }
}

impl<P: Port> Write for Serial<P> {
    /// Waits until the first byte is on its way, and then sends what can be sent at once.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let mut len = 0;
        for byte in bytes {
            while !self.0.can_send() {
                if len > 0 {
                    return Ok(len);
                }
            }
            self.0.send(*byte);
            len += 1;
        }
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while !self.0.can_send() {}
        Ok(())
    }
}
