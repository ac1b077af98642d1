//! The end of a connection: what is queued, the close handshake, and a lingering close.

use crate::{
    rate_limit::TokenBucket,
    ws::{
        connection::{Connection, End, Parts},
        message_reader::{MessageReader, Received},
        send_queue::SendQueue,
    },
};
use core::time::Duration;
use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    time::{Instant, sleep, timeout},
};

/// Time for the client to take what is queued, the close frame included.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for the client to return our close frame, after it was sent.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for the client to close its side. Closing a socket with unread data sends a reset, and a client
/// that is reset may lose what it was sent last, such as the close frame with the reason.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends a connection that has left its room. Takes a bounded time, whatever the client does.
pub(crate) async fn close(connection: Connection, end: End) {
    let Parts {
        mut stream,
        mut reader,
        mut queue,
        bytes,
        permit: _permit,
    } = connection.into_parts();
    let is_closed = match end {
        End::Lost => return,
        End::ByClient => true,
        End::ByServer { frame, drain } => {
            if !drain {
                queue.discard_unsent();
            }
            reader.close(frame, &mut queue);
            false
        }
    };
    let (source, sink) = stream.split();
    let mut incoming = Incoming {
        source,
        bytes,
        since: Instant::now(),
    };
    let sent = async { timeout(DRAIN_TIMEOUT, send(sink, queue)).await? };
    // The client may take nothing before what it sends is read.
    let closed = async {
        match is_closed {
            true => Ok(()),
            false => {
                let closed = incoming.read_until_closed(&mut reader);
                timeout(DRAIN_TIMEOUT + HANDSHAKE_TIMEOUT, closed).await?
            }
        }
    };
    if tokio::try_join!(sent, closed).is_ok() {
        // On an error or a timeout the socket is dropped anyway.
        let _ = timeout(LINGER_TIMEOUT, async {
            stream.shutdown().await?;
            let mut discarded = vec![0; CHUNK_BYTES];
            while stream.read(&mut discarded).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }
}

async fn send(mut sink: WriteHalf<'_>, mut queue: SendQueue) -> io::Result<()> {
    while !queue.is_empty() {
        match sink.write(queue.unsent()).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => queue.sent(sent),
        }
    }
    Ok(())
}

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// What still comes from the client.
struct Incoming<'s> {
    source: ReadHalf<'s>,
    bytes: TokenBucket,
    since: Instant,
}

impl Incoming<'_> {
    /// Reads until the client's close frame, or what ends the connection without one.
    async fn read_until_closed(&mut self, reader: &mut MessageReader) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        // The beginning of a header, at the front of the buffer.
        let mut kept = 0;
        loop {
            let read = self.source.read(&mut buffer[kept..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut input = &buffer[..kept + read];
            loop {
                match reader.read(&mut input, &mut io::sink()) {
                    Ok(Received::Nothing) => break,
                    Ok(_) => {}
                    Err(_) => return Ok(()),
                }
            }
            let rest = input.len();
            buffer.copy_within(kept + read - rest..kept + read, 0);
            kept = rest;
            let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            sleep(self.bytes.consume(now, read as u64)).await;
        }
    }
}
