//! [`Wire`] for types that implement the traits of `embedded-io`.

use super::wire::Wire;
use core::fmt;
use embedded_io::{Error, ErrorType, Read, ReadReady, Write, WriteReady};

/// A [`Wire`] of a driver that reports its readiness (`ReadReady`, `WriteReady`), so that reads and
/// writes never block: most UARTs with interrupts or DMA, USB, and sockets.
#[derive(Clone, Copy, Debug)]
pub struct Ready<IO>(pub IO);

/// [`Ready`] for drivers that are split: the first half is read, the second is written.
#[derive(Clone, Copy, Debug)]
pub struct ReadyHalves<R, W>(pub R, pub W);

/// A [`Wire`] of an I/O type that fails with an error instead of blocking, such as a non-blocking
/// socket.
///
/// `embedded-io` asks implementations of `Read` and `Write` to block. One that does must not be used
/// here, since it would stop the host; implement [`Wire`] on the layer below it.
#[derive(Clone, Copy, Debug)]
pub struct NonBlocking<IO, F> {
    /// What is read and written.
    pub io: IO,
    /// Whether an error means that the operation would have blocked.
    pub would_block: F,
}

/// Why a wire of `embedded-io` failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError<R, W = R> {
    /// The peer closed the connection (end of file).
    Closed,
    /// Reading failed.
    Read(R),
    /// Writing failed.
    Write(W),
}

impl<R: fmt::Display, W: fmt::Display> fmt::Display for WireError<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the peer closed the connection"),
            Self::Read(error) => write!(f, "reading from the wire failed: {error}"),
            Self::Write(error) => write!(f, "writing to the wire failed: {error}"),
        }
    }
}

impl<R: Error, W: Error> core::error::Error for WireError<R, W> {}

impl<IO: Read + ReadReady + Write + WriteReady> Wire for Ready<IO> {
    type Error = WireError<IO::Error>;

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        read(&mut self.0, bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        write(&mut self.0, bytes)
    }
}

impl<R: Read + ReadReady, W: Write + WriteReady> Wire for ReadyHalves<R, W> {
    type Error = WireError<R::Error, W::Error>;

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        read(&mut self.0, bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        write(&mut self.1, bytes)
    }
}

impl<IO: Read + Write, F: Fn(&<IO as ErrorType>::Error) -> bool> Wire for NonBlocking<IO, F> {
    type Error = WireError<IO::Error>;

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        match self.io.read(bytes) {
            Ok(0) if !bytes.is_empty() => Err(WireError::Closed),
            Ok(read) => Ok(read),
            Err(error) if (self.would_block)(&error) => Ok(0),
            Err(error) => Err(WireError::Read(error)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        match self.io.write(bytes) {
            Ok(written) => Ok(written),
            Err(error) if (self.would_block)(&error) => Ok(0),
            Err(error) => Err(WireError::Write(error)),
        }
    }
}

fn read<R: Read + ReadReady, W>(
    io: &mut R,
    bytes: &mut [u8],
) -> Result<usize, WireError<R::Error, W>> {
    if !io.read_ready().map_err(WireError::Read)? {
        return Ok(0);
    }
    match io.read(bytes).map_err(WireError::Read)? {
        0 if !bytes.is_empty() => Err(WireError::Closed),
        read => Ok(read),
    }
}

fn write<W: Write + WriteReady, R>(
    io: &mut W,
    bytes: &[u8],
) -> Result<usize, WireError<R, W::Error>> {
    match io.write_ready().map_err(WireError::Write)? {
        true => io.write(bytes).map_err(WireError::Write),
        false => Ok(0),
    }
}
