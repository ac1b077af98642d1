//! What a connection is sent that is rejected before it has asked for anything.

use crate::{
    http::{admission::Rejection, throttled_stream::lingering_close},
    stream::Stream,
};
use core::time::Duration;
use std::io;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

/// Sends the status and the reason, and closes the connection.
pub(super) async fn respond(mut stream: Stream, Rejection { status, reason }: Rejection) {
    let response = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\nretry-after: 1\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n{reason}\n",
        reason.len() + 1,
    );
    let sent = async {
        #[cfg(feature = "tls")]
        if let Stream::Tls(_) = &stream {
            tls::await_request(&mut stream).await?;
        }
        // It fits into the send buffer of a new connection.
        stream.write_all(response.as_bytes()).await?;
        stream.flush().await
    };
    if let Ok(Ok(())) = timeout(RESPONSE_TIMEOUT, sent).await {
        lingering_close(stream).await;
    }
}

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends TLS before it has begun, which takes no cryptography.
pub(super) async fn alert(mut stream: TcpStream) {
    /// A fatal alert, `internal_error` (RFC 8446, section 6.2).
    const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
    let sent: io::Result<()> = stream.write_all(&ALERT).await;
    if sent.is_ok() {
        lingering_close(Stream::Plain(stream)).await;
    }
}

#[cfg(feature = "tls")]
mod tls {
    use crate::stream::Stream;
    use core::{
        future::poll_fn,
        pin::Pin,
        task::{Poll, ready},
    };
    use std::io;
    use tokio::io::{AsyncRead, ReadBuf};

    /// Reads until the handshake is over and something of a request has come.
    ///
    /// # Errors
    ///
    /// If the client sends far more than that takes.
    pub(super) async fn await_request(stream: &mut Stream) -> io::Result<()> {
        const MAX_BYTES: usize = 32 << 10;
        let mut received = 0;
        poll_fn(|cx| {
            let (mut bytes, before) = ([0; 1024], received);
            let mut buffer = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
            received += stream.take_received(buffer.filled().len());
            if received > MAX_BYTES && received > before {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            ready!(polled)?;
            Poll::Ready(Ok(()))
        })
        .await
    }
}
