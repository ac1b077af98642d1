//! The traits of `embedded-io` for a UART, from the few functions of a board.

use core::{cell::RefCell, convert::Infallible};
use critical_section::Mutex;
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use heapless::Deque;

/// A board's UART.
pub trait Port {
    /// The bytes that its interrupt has received.
    fn received(&self) -> &'static ReceiveBuffer;

    /// Whether a byte can be sent without waiting.
    fn can_send(&self) -> bool;

    /// Sends a byte; [`can_send`](Self::can_send) must be true.
    fn send(&mut self, byte: u8);
}

/// Capacity of the receive buffer: the bytes that arrive during a guest's slice.
pub const RECEIVED_BYTES: usize = 512;

/// Receive buffer between an interrupt and the application. When it is full, bytes are dropped; the
/// link detects damaged frames.
pub struct ReceiveBuffer(Mutex<RefCell<Deque<u8, RECEIVED_BYTES>>>);

impl ReceiveBuffer {
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

/// A [`Port`] with the traits of `embedded-io`.
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
    /// Blocks until the first byte, which is there if `read_ready` returned true.
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
    /// Blocks until the first byte is sent, then sends as many as possible without waiting.
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
