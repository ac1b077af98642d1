//! Wires of what implements the traits of `embedded-io`.

use super::wire::Wire;
use core::fmt;
use embedded_io::{Error, ErrorType, Read, ReadReady, Write, WriteReady};

/// Something that tells whether it is ready, so that it never is waited for: the drivers of most
/// UARTs with interrupts or DMA, of USB, and of sockets.
#[derive(Clone, Copy, Debug)]
pub struct Ready<IO>(pub IO);

/// The same in two halves, as many drivers give them: the first is read, the second is written.
#[derive(Clone, Copy, Debug)]
pub struct ReadyHalves<R, W>(pub R, pub W);

/// Something that does not tell whether it is ready, but fails instead of waiting, with an error that
/// the function `is_not_ready` knows: a socket that is set not to block, for example.
///
/// The traits of `embedded-io` ask their implementations to wait. One that does so cannot be a wire as
/// it is, since the host would stand still; implement [`Wire`] for what is below it.
#[derive(Clone, Copy, Debug)]
pub struct NonBlocking<IO, F> {
    /// What is read and written.
    pub io: IO,
    /// Whether an error says that there is nothing to read, or no place to write, now.
    pub is_not_ready: F,
}

/// What may go wrong with a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError<R, W = R> {
    /// The other side has ended; there is nothing more to read.
    Ended,
    /// Reading failed.
    Read(R),
    /// Writing failed.
    Write(W),
}

impl<R: fmt::Display, W: fmt::Display> fmt::Display for WireError<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the other side of the wire has ended"),
            Self::Read(error) => write!(f, "the wire cannot be read: {error}"),
            Self::Write(error) => write!(f, "the wire cannot be written: {error}"),
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
            Ok(0) if !bytes.is_empty() => Err(WireError::Ended),
            Ok(read) => Ok(read),
            Err(error) if (self.is_not_ready)(&error) => Ok(0),
            Err(error) => Err(WireError::Read(error)),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        match self.io.write(bytes) {
            Ok(written) => Ok(written),
            Err(error) if (self.is_not_ready)(&error) => Ok(0),
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
        0 if !bytes.is_empty() => Err(WireError::Ended),
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
