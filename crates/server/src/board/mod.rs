//! A worker whose rooms run on a board, at the other end of a link.
//!
//! When the link breaks or the board restarts, the clients are closed with 1012 and the link is
//! reopened.

mod address;
mod backlog;
mod joins;
mod serial;
mod session;
mod transfers;

pub use self::address::{AddressError, BoardAddress};
pub(crate) use self::session::BoardRooms;

use self::{address::LinkStream, session::LinkError};
use crate::{log_limit::LogLimiter, rooms::worker::Worker};
use core::{ops::Range, time::Duration};
use stateroom_wasmi_host::{Clock, driver::tokio::TokioClock};
use stateroom_wasmi_link::{Bridge, SessionError};
use std::{io, num::NonZeroU32, rc::Rc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    task::yield_now,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Time between two attempts to open the link.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// Time to tell the board that the bridge leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the link is busy before the connections have their turn, and also how long clients are sent
/// to in one.
const TURN: Duration = Duration::from_millis(1);

/// Runs the rooms of a board until they are stopped.
pub(crate) async fn run(worker: Rc<Worker<BoardRooms>>, address: BoardAddress) {
    let clock = TokioClock::new();
    // A board may end each session as soon as it has begun.
    let (log_opened, log_lost) = (LogLimiter::new(), LogLimiter::new());
    let mut last_error = None;
    loop {
        let opened = tokio::select! {
            opened = address.open() => opened,
            () = run_disconnected(&worker) => return,
        };
        let ended = match opened {
            Ok(stream) => {
                last_error = None;
                if let Some(permit) = log_opened.permit() {
                    log::info!("the link to {address} is open{permit}");
                }
                run_session(stream, &clock, &worker).await
            }
            Err(error) => Err(LinkError::Broken(error)),
        };
        let Err(reason) = ended else { return };
        // Log each distinct error once, not on every retry.
        let text = reason.to_string();
        if last_error.as_ref() != Some(&text) {
            if let Some(permit) = log_lost.permit() {
                log::warn!("cannot reach the board at {address}: {text}{permit}");
            }
            last_error = Some(text);
        }
        worker.with(|rooms| rooms.on_link_lost(&reason));
        tokio::select! {
            () = sleep(RECONNECT_DELAY) => {}
            () = run_disconnected(&worker) => return,
        }
    }
}

/// Waits, while the link is down, until the rooms are stopped.
async fn run_disconnected(worker: &Worker<BoardRooms>) {
    while !worker.with(|rooms| rooms.is_stopping()) {
        worker.wait().await;
    }
}

/// Runs a session with the board until the rooms are stopped.
///
/// # Errors
///
/// When the link breaks.
async fn run_session(
    stream: LinkStream,
    clock: &TokioClock,
    worker: &Worker<BoardRooms>,
) -> Result<(), LinkError> {
    let (reader, writer) = split(stream);
    let session_id = random_session_id().map_err(LinkError::Broken)?;
    let mut session = Session {
        reader,
        received: Received::default(),
        writer,
        clock,
        bridge: Bridge::new(session_id, clock.now()),
        worker,
    };
    let mut turn_ends = Instant::now() + TURN;
    while !worker.with(|rooms| rooms.is_stopping()) {
        session.step(turn_ends).await?;
        // A link may be busy without end, and nothing else makes this task wait.
        if Instant::now() >= turn_ends {
            yield_now().await;
            turn_ends = Instant::now() + TURN;
        }
    }
    session.bridge.end_session();
    let _ = timeout(LEAVE_TIMEOUT, session.flush()).await;
    Ok(())
}

/// A session with the board, and the link that it is over.
struct Session<'a> {
    reader: ReadHalf<LinkStream>,
    received: Received,
    writer: WriteHalf<LinkStream>,
    clock: &'a TokioClock,
    bridge: Bridge,
    worker: &'a Worker<BoardRooms>,
}

impl Session<'_> {
    /// Waits for something to happen, and does what there is to do, for no longer than until
    /// `turn_ends`.
    async fn step(&mut self, turn_ends: Instant) -> Result<(), LinkError> {
        self.handle_received(turn_ends)?;
        let (has_flushed, join_deadline) = self.worker.with(|rooms| {
            let now = Instant::now();
            rooms.send_backlog(&mut self.bridge);
            (rooms.flush(TURN), rooms.handle_timeout(now))
        });
        let link_deadline = self.clock.at(self.bridge.poll_timeout());
        let deadline = join_deadline.map_or(link_deadline, |at| at.min(link_deadline));
        let has_work = !has_flushed || !self.received.is_empty();
        let unsent = self.bridge.unsent(self.clock.now());
        tokio::select! {
            read = self.received.read(&mut self.reader), if self.received.is_empty() => {
                read.map_err(LinkError::Broken)?;
            }
            written = self.writer.write(unsent), if !unsent.is_empty() => {
                let written = written.map_err(LinkError::Broken)?;
                self.bridge.sent(written, self.clock.now());
            }
            () = self.worker.wait(), if !has_work => {}
            () = sleep_until(deadline), if !has_work => {}
            () = core::future::ready(()), if has_work => {}
        }
        self.bridge.handle_timeout(self.clock.now())?;
        Ok(())
    }

    /// Handles what was read.
    fn handle_received(&mut self, until: Instant) -> Result<(), LinkError> {
        /// A few messages, of which each may go to many clients.
        const PIECE: usize = 64;
        while let Some(bytes) = self.received.take(PIECE) {
            let now = self.clock.now();
            self.worker.with(|rooms| {
                self.bridge
                    .handle_input(bytes, now, |message| rooms.handle_message(message))
            })?;
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    /// Writes everything that the bridge has to send.
    async fn flush(&mut self) -> io::Result<()> {
        loop {
            let now = self.clock.now();
            let unsent = self.bridge.unsent(now);
            if unsent.is_empty() {
                return self.writer.flush().await;
            }
            let written = self.writer.write(unsent).await?;
            self.bridge.sent(written, now);
        }
    }
}

/// What was read from the link, and not handled yet.
#[derive(Default)]
struct Received {
    buffer: Box<[u8]>,
    unhandled: Range<usize>,
}

impl Received {
    fn is_empty(&self) -> bool {
        self.unhandled.is_empty()
    }

    /// Reads, in place of what was handled.
    async fn read(&mut self, reader: &mut ReadHalf<LinkStream>) -> io::Result<()> {
        const READ_BYTES: usize = 4096;
        if self.buffer.is_empty() {
            self.buffer = vec![0; READ_BYTES].into();
        }
        match reader.read(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.unhandled = 0..read;
                Ok(())
            }
        }
    }

    /// The next bytes, at most so many; none if all are handled.
    fn take(&mut self, bytes: usize) -> Option<&[u8]> {
        let start = self.unhandled.start;
        self.unhandled.start = self.unhandled.end.min(start + bytes);
        Some(&self.buffer[start..self.unhandled.start]).filter(|bytes| !bytes.is_empty())
    }
}

/// Random, so that it differs from earlier sessions.
fn random_session_id() -> io::Result<NonZeroU32> {
    Ok(NonZeroU32::new(getrandom::u32()?).unwrap_or(NonZeroU32::MIN))
}

impl From<SessionError> for LinkError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

/// The `module` of a board's rooms in `/rooms`.
pub(crate) fn module_name(address: &BoardAddress) -> String {
    format!("the board at {address}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::ServerConfig,
        rooms::{Rooms, clients::ClientLimits, handover::Command, worker},
        ws::connection::ConnectionOptions,
    };
    use core::{
        pin::Pin,
        task::{Context, Poll},
    };
    use tokio::{
        io::{AsyncRead, AsyncWrite, ReadBuf},
        sync::oneshot,
    };

    /// A link that always has bytes to read.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buffer.put_slice(&[0x11; 1000]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_link_that_is_always_busy_leaves_the_other_tasks_their_turns() {
        let config = ServerConfig::new([]);
        let limits = ClientLimits::of_worker(&config);
        let worker = worker::start(
            "board".into(),
            ConnectionOptions::new(&config),
            move || BoardRooms::new(limits, [0; 32]),
            |worker| async move {
                let ended = run_session(Box::new(Endless), &TokioClock::new(), &worker).await;
                assert!(ended.is_ok(), "{ended:?}");
                Ok(())
            },
        );
        let worker = worker.expect("it starts");
        let served = async {
            for _ in 0..10 {
                let (reply, asked) = oneshot::channel();
                let question = |_: &mut dyn Rooms| {
                    let _ = reply.send(());
                };
                let question = Command::Ask(Box::new(question));
                assert!(worker.commands.send(question).is_ok());
                asked.await.expect("it is served");
            }
            assert!(worker.commands.send(Command::Stop).is_ok());
            let ended = worker.ended.await.expect("it does not panic");
            ended.expect("it ends without an error");
        };
        // Far more than it takes.
        let served = timeout(Duration::from_secs(120), served).await;
        served.expect("the other tasks have no turns");
    }
}
