//! Connections that end without a reset.

use axum::serve::Listener;
use core::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::{
    io::{self, IoSlice},
    net::SocketAddr,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::timeout,
};

/// A listener whose connections linger.
pub(super) struct Lingering(pub(super) TcpListener);

impl Listener for Lingering {
    type Io = LingeringStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Messages are small and are to leave at once.
        let _ = stream.set_nodelay(true);
        (LingeringStream(Some(stream)), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection that, once it is dropped, still takes for a short time what the other side sends.
///
/// A socket that is closed while there is something to read answers with a reset, and a client that
/// is reset may never see what it was sent last: the close frame that says its message was too long.
pub(super) struct LingeringStream(
    /// Gone once it was dropped.
    Option<TcpStream>,
);

impl Drop for LingeringStream {
    fn drop(&mut self) {
        if let (Some(stream), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(linger(stream));
        }
    }
}

/// Takes and throws away what comes, until the other side ends, for a short time.
async fn linger(mut stream: TcpStream) {
    const TIME: Duration = Duration::from_secs(2);
    let ended = async {
        stream.shutdown().await?;
        let mut nowhere = [0; 4096];
        while stream.read(&mut nowhere).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever goes on for longer, or is gone, is not waited for.
    let _ = timeout(TIME, ended).await;
}

impl LingeringStream {
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for LingeringStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for LingeringStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
