//! A serial port that no other process uses.

use core::{
    pin::Pin,
    task::{Context, Poll},
};
use serial2_tokio::SerialPort;
use std::{
    io::{self, IoSlice},
    path::Path,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An open serial port, claimed as long as this is.
pub(super) struct ExclusivePort {
    port: SerialPort,
    #[cfg(unix)]
    _claim: unix::Claim,
}

impl ExclusivePort {
    /// Opens a port. This may block: a port waits until what was written to it before is sent.
    ///
    /// # Errors
    ///
    /// If another process has the port, or as the operating system says.
    pub(super) fn open(path: &Path, baud: u32) -> io::Result<Self> {
        // Before the port is opened for use, which changes its settings.
        #[cfg(unix)]
        let claim = unix::Claim::new(path)?;
        let port = SerialPort::open(path, baud).map_err(explain)?;
        #[cfg(unix)]
        claim.refuse_others();
        Ok(Self {
            port,
            #[cfg(unix)]
            _claim: claim,
        })
    }
}

/// Says what an error means of which the operating system's text is about something else.
fn explain(error: io::Error) -> io::Error {
    let is_in_use = match error.kind() {
        io::ErrorKind::ResourceBusy => true,
        // Windows opens a port once.
        io::ErrorKind::PermissionDenied => cfg!(windows),
        _ => false,
    };
    match is_in_use {
        true => in_use(),
        false => error,
    }
}

fn in_use() -> io::Error {
    let text = "the port is in use by another process";
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}

impl AsyncRead for ExclusivePort {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().port).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ExclusivePort {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().port).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().port).poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().port).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().port).poll_shutdown(cx)
    }
}

#[cfg(unix)]
mod unix {
    use super::{explain, in_use};
    use rustix::{
        fs::{FlockOperation, Mode, OFlags, flock, open},
        io::Errno,
        termios::{ioctl_tiocexcl, ioctl_tiocnxcl},
    };
    use std::{io, os::fd::OwnedFd, path::Path};

    /// A file of the port that holds the claim; the port itself is another, since its crate opens it by
    /// its path.
    pub(super) struct Claim(OwnedFd);

    impl Claim {
        /// Locks the port, as other programs for serial ports do.
        pub(super) fn new(path: &Path) -> io::Result<Self> {
            // Without waiting for a modem, and without making the port the process's terminal.
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = open(path, flags, Mode::empty()).map_err(|error| explain(error.into()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => Err(in_use()),
                // Some systems do not lock devices.
                Ok(()) | Err(_) => Ok(Self(file)),
            }
        }

        /// Lets no more files of the port be opened, also by programs that do not lock.
        pub(super) fn refuse_others(&self) {
            // Only a terminal can, which the port is, or it would not have opened.
            let _ = ioctl_tiocexcl(&self.0);
        }
    }

    impl Drop for Claim {
        fn drop(&mut self) {
            // It is a state of the port, and stays if another process had the port open before.
            let _ = ioctl_tiocnxcl(&self.0);
        }
    }
}
