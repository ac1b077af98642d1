//! A TCP stream with throttled reads and a lingering close.

use crate::{http::admission::ConnectionPermit, rate_limit::TokenBucket};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use std::io::{self, IoSlice};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    runtime::Handle,
    time::{Instant, Sleep, sleep, timeout},
};

/// A TCP stream whose reads are throttled, and whose drop is followed by a lingering close.
///
/// Closing a socket with unread data sends a reset, and a client that is reset may lose what it was
/// sent last, such as the close frame with the reason.
pub(super) struct ThrottledStream {
    /// `None` once dropped.
    open: Option<(TcpStream, ConnectionPermit)>,
    since: Instant,
    /// Counts raw bytes, so that partial messages and control frames are throttled, too.
    bytes: TokenBucket,
    /// Set while over the rate.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Drop for ThrottledStream {
    fn drop(&mut self) {
        if let (Some((stream, permit)), Ok(runtime)) = (self.open.take(), Handle::try_current()) {
            runtime.spawn(async move {
                lingering_close(stream).await;
                drop(permit);
            });
        }
    }
}

/// Shuts down the sending side and discards what arrives until the peer closes, for a bounded time.
pub(super) async fn lingering_close(mut stream: TcpStream) {
    const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
    let closed = async {
        stream.shutdown().await?;
        let mut discarded = [0; 4096];
        while stream.read(&mut discarded).await? > 0 {}
        io::Result::Ok(())
    };
    // On an error or a timeout the socket is dropped anyway.
    let _ = timeout(LINGER_TIMEOUT, closed).await;
}

impl ThrottledStream {
    pub(super) fn new(stream: TcpStream, permit: ConnectionPermit, bytes: TokenBucket) -> Self {
        Self {
            open: Some((stream, permit)),
            since: Instant::now(),
            bytes,
            pause: None,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.open.as_mut().map(|(stream, _)| Pin::new(stream));
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Counts bytes that were read, and pauses when over the rate.
    fn count(&mut self, bytes: usize) {
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let pause = self.bytes.consume(now, bytes as u64);
        if !pause.is_zero() {
            self.pause = Some(Box::pin(sleep(pause)));
        }
    }
}

impl AsyncRead for ThrottledStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let before = buffer.filled().len();
        ready!(self.stream()?.poll_read(cx, buffer))?;
        self.count(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ThrottledStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
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
