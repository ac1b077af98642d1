//! TLS over a TCP stream. Other than that of `tokio-rustls`, it can be taken apart and put together again
//! in another runtime.

use super::records::RecordCounter;
use core::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use rustls::ServerConnection;
use std::io::{self, Read, Write};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// The server's end of a TLS session, with its stream.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: Box<ServerConnection>,
    records: RecordCounter,
    /// Bytes that were received, until they are counted, and [`RECORD_BYTES`] for each record.
    received: usize,
}

/// A session without its stream.
pub(crate) struct TlsSession {
    session: Box<ServerConnection>,
    records: RecordCounter,
}

impl TlsSession {
    /// One that nothing was received of.
    pub(super) fn new(session: ServerConnection) -> Self {
        Self {
            session: Box::new(session),
            records: RecordCounter::default(),
        }
    }
}

/// What a record counts for besides its bytes, since it takes time to decrypt one, however short it is.
const RECORD_BYTES: usize = 256;

/// What is received in a row that has nothing for the reader. Records may be empty, and each takes time.
const MAX_RECEIVED: usize = 64 << 10;

impl TlsStream {
    pub(crate) fn new(tcp: TcpStream, session: TlsSession) -> Self {
        let TlsSession { session, records } = session;
        Self {
            tcp,
            session,
            records,
            received: 0,
        }
    }

    /// How many bytes were received since this was last asked, with all that TLS adds; short records count
    /// for more than they have.
    pub(crate) fn take_received(&mut self) -> usize {
        core::mem::take(&mut self.received)
    }

    pub(crate) fn into_parts(self) -> (TcpStream, TlsSession) {
        let Self {
            tcp,
            session,
            records,
            ..
        } = self;
        (tcp, TlsSession { session, records })
    }

    /// Sends what the session has to send; pending if the socket does not take all of it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Socket {
            tcp: &mut self.tcp,
            records: &mut self.records,
            received_records: 0,
            cx,
        };
        while self.session.wants_write() {
            match self.session.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Receives what the socket has; returns for how many bytes that counts. Replies to handshakes are sent as far as possible.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut socket = Socket {
            tcp: &mut self.tcp,
            records: &mut self.records,
            received_records: 0,
            cx,
        };
        let received = match self.session.read_tls(&mut socket) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let received = received + RECORD_BYTES * socket.received_records;
        self.received += received;
        let processed = self.session.process_new_packets();
        // Also the alert of an error, as far as the socket takes it at once.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        processed.map_err(malformed)?;
        Poll::Ready(Ok(received))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut received = 0;
        loop {
            match self.session.reader().read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A client that ends TCP without the end of TLS: what WebSockets end with is told in them.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if received >= MAX_RECEIVED {
                // Others have their turn first, and what was received is counted.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // The socket may have taken only a part of a handshake's message, which the client waits for.
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            received += ready!(self.poll_receive(cx))?;
        }
    }
}

/// What is written is encrypted at once, and sent as far as the socket takes it; the rest by the next write
/// or flush.
impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // So that no more is encrypted ahead than one write.
        ready!(self.poll_send(cx))?;
        let written = self.session.writer().write(bytes)?;
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(written)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // More than once is no more than once.
        self.session.send_close_notify();
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A stream as rustls reads and writes it: what is pending would block.
struct Socket<'a, 'cx> {
    tcp: &'a mut TcpStream,
    records: &'a mut RecordCounter,
    received_records: usize,
    cx: &'a mut Context<'cx>,
}

impl Read for Socket<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut *self.tcp).poll_read(self.cx, &mut buffer) {
            Poll::Ready(read) => read.map(|()| {
                self.received_records += self.records.count(buffer.filled());
                buffer.filled().len()
            }),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.tcp).poll_write(self.cx, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
