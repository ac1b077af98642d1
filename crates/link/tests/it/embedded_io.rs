//! Wires of types that implement the traits of `embedded-io`.

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};
use stateroom_wasmi_link::{NonBlocking, Ready, ReadyHalves, Wire, WireError};

/// A UART that reads and writes one byte at a time.
#[derive(Default)]
struct Uart {
    received: Vec<u8>,
    sent: Vec<u8>,
    space: usize,
    is_closed: bool,
    is_broken: bool,
}

impl ErrorType for Uart {
    type Error = ErrorKind;
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ErrorKind> {
        if self.is_broken {
            return Err(ErrorKind::BrokenPipe);
        }
        if self.received.is_empty() {
            // A real one would block here.
            return if self.is_closed {
                Ok(0)
            } else {
                Err(ErrorKind::TimedOut)
            };
        }
        bytes[0] = self.received.remove(0);
        Ok(1)
    }
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(!self.received.is_empty() || self.is_closed || self.is_broken)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        if self.is_broken {
            return Err(ErrorKind::BrokenPipe);
        }
        if self.space == 0 {
            return Err(ErrorKind::TimedOut);
        }
        self.space -= 1;
        self.sent.push(bytes[0]);
        Ok(1)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl WriteReady for Uart {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(self.space > 0 || self.is_broken)
    }
}

fn assert_does_not_block<W: Wire<Error = WireError<ErrorKind>>>(
    mut wire: W,
    sent: impl Fn(&W) -> Vec<u8>,
) {
    let mut bytes = [0; 8];
    assert_eq!(wire.read(&mut bytes), Ok(1));
    assert_eq!(bytes[0], 7);
    assert_eq!(wire.read(&mut bytes), Ok(0), "it does not block");
    assert_eq!(wire.write(&[1, 2]), Ok(1));
    assert_eq!(wire.write(&[2]), Ok(0), "it does not block");
    assert_eq!(sent(&wire), [1]);
}

fn uart() -> Uart {
    Uart {
        received: vec![7],
        space: 1,
        ..Uart::default()
    }
}

#[test]
fn ready_drivers_do_not_block() {
    assert_does_not_block(Ready(uart()), |wire| wire.0.sent.clone());
    assert_does_not_block(ReadyHalves(uart(), uart()), |wire| wire.1.sent.clone());
}

#[test]
fn non_blocking_io_does_not_block() {
    let would_block = |error: &ErrorKind| *error == ErrorKind::TimedOut;
    assert_does_not_block(
        NonBlocking {
            io: uart(),
            would_block,
        },
        |wire| wire.io.sent.clone(),
    );
}

#[test]
fn errors_and_end_of_file_are_reported() {
    let never = |_: &ErrorKind| false;
    let broken = || Uart {
        is_broken: true,
        ..Uart::default()
    };
    let closed = || Uart {
        is_closed: true,
        ..Uart::default()
    };
    assert_eq!(
        Ready(broken()).read(&mut [0]),
        Err(WireError::Read(ErrorKind::BrokenPipe))
    );
    assert_eq!(
        Ready(broken()).write(&[0]),
        Err(WireError::Write(ErrorKind::BrokenPipe))
    );
    assert_eq!(Ready(closed()).read(&mut [0]), Err(WireError::Closed));
    let mut wire = NonBlocking {
        io: broken(),
        would_block: never,
    };
    assert_eq!(
        wire.read(&mut [0]),
        Err(WireError::Read(ErrorKind::BrokenPipe))
    );
    assert_eq!(
        wire.write(&[0]),
        Err(WireError::Write(ErrorKind::BrokenPipe))
    );
    assert_eq!(
        NonBlocking {
            io: closed(),
            would_block: never
        }
        .read(&mut [0]),
        Err(WireError::Closed)
    );
}
