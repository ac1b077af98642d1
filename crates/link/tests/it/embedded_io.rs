//! Wires of what implements the traits of `embedded-io`.

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};
use stateroom_wasmi_link::{NonBlocking, Ready, ReadyHalves, Wire, WireError};

/// A UART with a byte to read and a place to write, where it is not out of them.
#[derive(Default)]
struct Uart {
    came: Vec<u8>,
    sent: Vec<u8>,
    space: usize,
    has_ended: bool,
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
        if self.came.is_empty() {
            // A real one would wait here for ever.
            return if self.has_ended {
                Ok(0)
            } else {
                Err(ErrorKind::TimedOut)
            };
        }
        bytes[0] = self.came.remove(0);
        Ok(1)
    }
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(!self.came.is_empty() || self.has_ended || self.is_broken)
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

fn assert_is_a_wire<W: Wire<Error = WireError<ErrorKind>>>(
    mut wire: W,
    sent: impl Fn(&W) -> Vec<u8>,
) {
    let mut bytes = [0; 8];
    assert_eq!(wire.read(&mut bytes), Ok(1));
    assert_eq!(bytes[0], 7);
    assert_eq!(wire.read(&mut bytes), Ok(0), "it does not wait");
    assert_eq!(wire.write(&[1, 2]), Ok(1));
    assert_eq!(wire.write(&[2]), Ok(0), "it does not wait");
    assert_eq!(sent(&wire), [1]);
}

fn uart() -> Uart {
    Uart {
        came: vec![7],
        space: 1,
        ..Uart::default()
    }
}

#[test]
fn what_tells_whether_it_is_ready_is_not_waited_for() {
    assert_is_a_wire(Ready(uart()), |wire| wire.0.sent.clone());
    assert_is_a_wire(ReadyHalves(uart(), uart()), |wire| wire.1.sent.clone());
}

#[test]
fn what_fails_instead_of_waiting_is_not_waited_for() {
    let is_not_ready = |error: &ErrorKind| *error == ErrorKind::TimedOut;
    assert_is_a_wire(
        NonBlocking {
            io: uart(),
            is_not_ready,
        },
        |wire| wire.io.sent.clone(),
    );
}

#[test]
fn a_wire_that_is_broken_or_has_ended_says_so() {
    let never = |_: &ErrorKind| false;
    let broken = || Uart {
        is_broken: true,
        ..Uart::default()
    };
    let ended = || Uart {
        has_ended: true,
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
    assert_eq!(Ready(ended()).read(&mut [0]), Err(WireError::Ended));
    let mut wire = NonBlocking {
        io: broken(),
        is_not_ready: never,
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
            io: ended(),
            is_not_ready: never
        }
        .read(&mut [0]),
        Err(WireError::Ended)
    );
}
