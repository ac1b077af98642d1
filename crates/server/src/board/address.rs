//! Where a board is, and the line to it.

use core::fmt;
use std::{
    boxed::Box,
    io,
    path::PathBuf,
    string::{String, ToString},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Where a board is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoardAddress {
    /// A TCP socket, as `host:port`.
    Tcp(String),
    /// The path of a Unix socket.
    #[cfg(unix)]
    Unix(PathBuf),
    /// A serial port.
    Serial {
        /// Its path, or its name on Windows.
        port: PathBuf,
        /// Bits per second.
        baud: u32,
    },
}

/// A text that is no address of a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is neither a serial port nor host:port nor a Unix socket",
            self.text
        )
    }
}

impl core::error::Error for AddressError {}

impl BoardAddress {
    /// Reads an address: `host:port`, the path of a Unix socket, or else a serial port, with this many
    /// bits per second.
    ///
    /// # Errors
    ///
    /// If it is empty.
    pub fn parse(text: &str, baud: u32) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError {
                text: text.to_string(),
            });
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            if std::fs::metadata(text).is_ok_and(|file| file.file_type().is_socket()) {
                return Ok(Self::Unix(text.into()));
            }
        }
        let is_tcp = text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        });
        Ok(match is_tcp {
            true => Self::Tcp(text.to_string()),
            false => Self::Serial {
                port: text.into(),
                baud,
            },
        })
    }

    pub(crate) async fn open(&self) -> io::Result<Line> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Frames are small and are to leave at once.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Self::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            Self::Serial { port, baud } => {
                Ok(Box::new(serial2_tokio::SerialPort::open(port, *baud)?))
            }
        }
    }
}

impl fmt::Display for BoardAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            #[cfg(unix)]
            Self::Unix(path) => path.display().fmt(f),
            Self::Serial { port, .. } => port.display().fmt(f),
        }
    }
}

/// An open line, whatever it is.
pub(crate) type Line = Box<dyn Stream>;

/// What bytes are read from and written to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
