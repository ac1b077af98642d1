//! The byte stream of a connection: TCP, TLS over it, or a pipe within the process.

#[cfg(feature = "tls")]
use crate::tls::{TlsSession, TlsStream};
use core::{
    pin::Pin,
    task::{Context, Poll},
};
use std::io::{self, IoSlice};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

/// A stream that is registered with a runtime.
pub(crate) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
    /// From the gateway of this node.
    Pipe(DuplexStream),
}

/// A stream on its way to another runtime.
pub(crate) enum DetachedStream {
    Plain(std::net::TcpStream),
    #[cfg(feature = "tls")]
    Tls(std::net::TcpStream, TlsSession),
    Pipe(DuplexStream),
}

impl Stream {
    pub(crate) fn detach(self) -> io::Result<DetachedStream> {
        Ok(match self {
            Self::Plain(tcp) => DetachedStream::Plain(tcp.into_std()?),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => {
                let (tcp, session) = tls.into_parts();
                DetachedStream::Tls(tcp.into_std()?, session)
            }
            Self::Pipe(pipe) => DetachedStream::Pipe(pipe),
        })
    }

    /// How many bytes have come from the client since this was last asked, of which `read` were read: with
    /// TLS, all that it adds is among them.
    pub(crate) fn take_received(&mut self, read: usize) -> usize {
        match self {
            Self::Plain(_) | Self::Pipe(_) => read,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.take_received(),
        }
    }

    /// The connection without TLS, which must have ended; none if it is within the process.
    pub(crate) fn into_tcp(self) -> Option<TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => Some(tls.into_parts().0),
            Self::Pipe(_) => None,
        }
    }

    /// Registers a stream with this runtime.
    pub(crate) fn attach(detached: DetachedStream) -> io::Result<Self> {
        Ok(match detached {
            DetachedStream::Plain(tcp) => Self::Plain(TcpStream::from_std(tcp)?),
            #[cfg(feature = "tls")]
            DetachedStream::Tls(tcp, session) => {
                let tcp = TcpStream::from_std(tcp)?;
                Self::Tls(Box::new(TlsStream::new(tcp, session)))
            }
            DetachedStream::Pipe(pipe) => Self::Pipe(pipe),
        })
    }
}

/// Calls a method of whichever stream it is.
macro_rules! of_either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain(tcp) => {
                let $stream = Pin::new(tcp);
                $call
            }
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => {
                let $stream = Pin::new(&mut **tls);
                $call
            }
            Stream::Pipe(pipe) => {
                let $stream = Pin::new(pipe);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_either!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self, stream => stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_either!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.is_write_vectored(),
            Self::Pipe(pipe) => pipe.is_write_vectored(),
        }
    }
}
