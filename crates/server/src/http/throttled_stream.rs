//! A stream with throttled reads, a timeout of its writes, and a lingering close.

use crate::{
    http::admission::ConnectionPermit,
    rate_limit::{TokenBucket, nanos_since},
    stream::Stream,
};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use std::{
    io::{self, IoSlice},
    time::Instant,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    runtime::Handle,
    time::{Sleep, sleep, timeout},
};

/// A stream whose reads are throttled, whose writes fail once the client has taken nothing for
/// too long, and whose drop is followed by a lingering close.
///
/// Closing a socket with unread data sends a reset, and a client that is reset may lose what it was
/// sent last, such as the response that says why.
pub(crate) struct ThrottledStream {
    /// `None` once dropped or taken apart.
    open: Option<(Stream, ConnectionPermit)>,
    since: Instant,
    /// Counts raw bytes, whatever they are.
    bytes: TokenBucket,
    /// Set while over the rate.
    pause: Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
    /// Set while the client takes nothing.
    write_deadline: Option<Pin<Box<Sleep>>>,
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
pub(crate) async fn lingering_close(mut stream: Stream) {
    const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
    let closed = async {
        stream.shutdown().await?;
        // To decrypt what is discarded would take time.
        if let Some(mut tcp) = stream.into_tcp() {
            let mut discarded = [0; 4096];
            while tcp.read(&mut discarded).await? > 0 {}
        }
        io::Result::Ok(())
    };
    // On an error or a timeout the socket is dropped anyway.
    let _ = timeout(LINGER_TIMEOUT, closed).await;
}

impl ThrottledStream {
    pub(crate) fn new(
        stream: Stream,
        permit: ConnectionPermit,
        bytes: TokenBucket,
        write_timeout: Duration,
    ) -> Self {
        Self {
            open: Some((stream, permit)),
            since: Instant::now(),
            bytes,
            pause: None,
            write_timeout,
            write_deadline: None,
        }
    }

    /// The stream itself, to be read without a limit and closed by the caller.
    pub(super) fn into_parts(mut self) -> Option<(Stream, ConnectionPermit)> {
        self.open.take()
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        let stream = self.open.as_mut().map(|(stream, _)| Pin::new(stream));
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Counts bytes that were received, and pauses when over the rate.
    fn count(&mut self, bytes: usize) {
        let pause = self.bytes.consume(nanos_since(self.since), bytes as u64);
        if !pause.is_zero() {
            self.pause = Some(Box::pin(sleep(pause)));
        }
    }

    /// Fails what has been pending for too long: a write, or the flush of what TLS has encrypted.
    fn limit_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        let timeout = self.write_timeout;
        let deadline = self
            .write_deadline
            .get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        let mut stream = self.stream()?;
        let polled = stream.as_mut().poll_read(cx, buffer);
        let received = stream.take_received(buffer.filled().len() - before);
        self.count(received);
        polled
    }
}

impl AsyncWrite for ThrottledStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write(cx, bytes);
        self.limit_write(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = self.stream()?.poll_flush(cx);
        self.limit_write(cx, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = self.stream()?.poll_shutdown(cx);
        self.limit_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write_vectored(cx, slices);
        self.limit_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        let stream = self.open.as_ref();
        stream.is_some_and(|(stream, _)| stream.is_write_vectored())
    }
}
