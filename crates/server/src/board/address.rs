//! The address of a board, and its byte stream.

use crate::board::serial::ExclusivePort;
use core::{fmt, time::Duration};
use std::{io, path::PathBuf};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};

/// How to reach a board.
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

/// A text that is not the address of a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a serial port, host:port or the path of a Unix socket",
            self.text
        )
    }
}

impl core::error::Error for AddressError {}

impl BoardAddress {
    /// Parses `host:port`, the path of an existing Unix socket, or else a serial port, which is
    /// opened at `baud` bits per second.
    ///
    /// # Errors
    ///
    /// If the text is empty.
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

    /// Opens the link. May be dropped at any time.
    pub(super) async fn open(&self) -> io::Result<LinkStream> {
        /// The operating system would try for minutes, at longer and longer intervals.
        const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
        match self {
            Self::Tcp(address) => {
                let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
                let stream = connected.map_err(|_| io::ErrorKind::TimedOut)??;
                // Small frames must leave at once.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Self::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            Self::Serial { port, baud } => {
                let (port, baud) = (port.clone(), *baud);
                let opened = spawn_blocking(move || ExclusivePort::open(&port, baud)).await;
                Ok(Box::new(opened.map_err(io::Error::other)??))
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

/// The byte stream of a link.
pub(super) type LinkStream = Box<dyn Stream>;

/// A duplex byte stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
