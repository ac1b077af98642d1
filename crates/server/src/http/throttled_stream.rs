//! Connections that are read from only so fast, and end without a reset.

use crate::{http::admission::ConnectionPermit, rate_limit::TokenBucket};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use std::{
    boxed::Box,
    io::{self, IoSlice},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    runtime::Handle,
    time::{Instant, Sleep, sleep, timeout},
};

/// A connection that is read from only so fast, and that, once it is dropped, still takes for a
/// short time what the other side sends.
///
/// A socket that is closed while there is something to read answers with a reset, and a client that
/// is reset may never see what it was sent last: the close frame that says its message was too long.
pub(crate) struct ThrottledStream {
    /// Gone once it was dropped.
    open: Option<(TcpStream, ConnectionPermit)>,
    since: Instant,
    /// Bytes that may be read. All that comes is counted here, also what is no message yet, or never
    /// becomes one.
    bytes: TokenBucket,
    /// Set when more was read than there should be.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Drop for ThrottledStream {
    fn drop(&mut self) {
        if let (Some((stream, place)), Ok(runtime)) = (self.open.take(), Handle::try_current()) {
            runtime.spawn(async move {
                lingering_close(stream).await;
                drop(place);
            });
        }
    }
}

/// Takes and throws away what comes, until the other side ends, for a short time.
pub(crate) async fn lingering_close(mut stream: TcpStream) {
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

impl ThrottledStream {
    pub(crate) fn new(stream: TcpStream, place: ConnectionPermit, bytes: TokenBucket) -> Self {
        Self {
            open: Some((stream, place)),
            since: Instant::now(),
            bytes,
            pause: None,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.open.as_mut().map(|(stream, _)| Pin::new(stream));
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Counts what was read, and pauses if it was too much.
    fn count(&mut self, bytes: usize) {
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wait = self.bytes.take(now, bytes as u64);
        if !wait.is_zero() {
            self.pause = Some(Box::pin(sleep(wait)));
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
