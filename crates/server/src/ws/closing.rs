//! The end of a connection: what is queued, the close handshake, and a lingering close.

use crate::{
    rate_limit::TokenBucket,
    stream::Stream,
    ws::{
        connection::{Connection, End},
        message_reader::{MessageReader, Received},
        send_queue::SendQueue,
    },
};
use core::time::Duration;
use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
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
    let Connection {
        stream,
        mut reader,
        mut queue,
        since,
        bytes,
        permit: _permit,
        ..
    } = connection;
    match end {
        End::Lost => return,
        End::ByClient => reader.close(None, &mut queue),
        End::ByServer { frame, drain } => {
            if !drain {
                queue.discard_unsent();
            }
            reader.close(Some(frame), &mut queue);
        }
    }
    shut_down(stream, reader, queue, since, bytes).await;
}

/// Sends what is queued, expects the client's close frame unless nothing more is read, and closes.
async fn shut_down(
    mut stream: Stream,
    mut reader: MessageReader,
    queue: SendQueue,
    since: Instant,
    bytes: TokenBucket,
) {
    // RFC 6455, 7.1.7: after a violation not even a close frame is read. Often none comes, since the
    // violation was the client's close frame.
    let is_over = reader.is_over();
    let (source, sink) = split(&mut stream);
    let mut incoming = Incoming {
        source,
        since,
        bytes,
    };
    let sent = async { timeout(DRAIN_TIMEOUT, send(sink, queue)).await? };
    // The client may take nothing before what it sends is read.
    let closed = async {
        match is_over {
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

async fn send(mut sink: WriteHalf<&mut Stream>, mut queue: SendQueue) -> io::Result<()> {
    while !queue.is_empty() {
        match sink.write(queue.unsent()).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => queue.sent(sent),
        }
    }
    sink.flush().await
}

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// What a frame counts for besides its bytes, since many small ones take long to read.
const FRAME_COST: u64 = 256;

/// What still comes from the client.
struct Incoming<'s> {
    source: ReadHalf<&'s mut Stream>,
    since: Instant,
    bytes: TokenBucket,
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
            let mut cost = read as u64;
            loop {
                match reader.read(&mut input, &mut io::sink()) {
                    Ok(Received::Nothing) => break,
                    Ok(_) => cost += FRAME_COST,
                    Err(_) => return Ok(()),
                }
            }
            let rest = input.len();
            buffer.copy_within(kept + read - rest..kept + read, 0);
            kept = rest;
            let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            sleep(self.bytes.consume(now, cost)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rate_limit::Rate,
        ws::{
            message_reader::ReadEnd,
            send_queue::{QueueLimits, QueuedBytes},
        },
    };
    use tokio::net::{TcpListener, TcpStream};

    /// RFC 6455, 7.1.7. The clock is virtual.
    #[tokio::test(start_paused = true)]
    async fn after_a_bad_close_frame_no_other_is_waited_for() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (stream, _) = listener.accept().await?;
        let limits = QueueLimits {
            messages: 10,
            bytes: 100,
        };
        let mut queue = SendQueue::new(limits, QueuedBytes::default());
        let mut reader = MessageReader::new(100);
        // A payload of one byte is no code.
        let received = reader.read(&mut &[0x88, 0x81, 0, 0, 0, 0, 3][..], &mut queue);
        let Err(ReadEnd::Violation(frame)) = received else {
            panic!("{received:?}");
        };
        reader.close(Some(frame), &mut queue);

        let start = Instant::now();
        let bytes = TokenBucket::new(Rate::UNLIMITED);
        let until_closed = async {
            let mut received = Vec::new();
            client.read_to_end(&mut received).await?;
            drop(client);
            io::Result::Ok((received, start.elapsed()))
        };
        let ((), closed) = tokio::join!(
            shut_down(Stream::Plain(stream), reader, queue, Instant::now(), bytes),
            until_closed
        );
        let (received, elapsed) = closed?;
        assert_eq!(received[0], 0x88);
        assert_eq!(received[2..4], 1002_u16.to_be_bytes());
        assert!(elapsed < HANDSHAKE_TIMEOUT, "{elapsed:?}");
        Ok(())
    }
}
