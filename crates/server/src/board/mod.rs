//! A worker whose rooms run on a board, at the other end of a link.
//!
//! When the link breaks or the board restarts, the clients are closed with 1012 and the link is
//! reopened.

mod address;
mod session;

pub use self::address::{AddressError, BoardAddress};
pub(crate) use self::session::BoardRooms;

use self::{address::LinkStream, session::LinkError};
use crate::rooms::worker::Worker;
use core::time::Duration;
use stateroom_wasmi_host::{Clock, driver::tokio::TokioClock};
use stateroom_wasmi_link::{Bridge, SessionError};
use std::{io, num::NonZeroU32, rc::Rc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    task::yield_now,
    time::{Instant, sleep, timeout},
};

/// Time between two attempts to open the link.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// Time to tell the board that the bridge leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs the rooms of a board until they are stopped.
pub(crate) async fn run(worker: Rc<Worker<BoardRooms>>, address: BoardAddress) {
    let clock = TokioClock::new();
    let mut last_error = None;
    loop {
        let opened = tokio::select! {
            opened = address.open() => opened,
            () = run_disconnected(&worker) => return,
        };
        let ended = match opened {
            Ok(stream) => {
                last_error = None;
                log::info!("the link to {address} is open");
                run_session(stream, &clock, &worker).await
            }
            Err(error) => Err(LinkError::Broken(error)),
        };
        let Err(reason) = ended else { return };
        // Log each distinct error once, not on every retry.
        let text = reason.to_string();
        if last_error.as_ref() != Some(&text) {
            log::warn!("cannot reach the board at {address}: {text}");
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
        worker.wait(None).await;
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
    let (mut reader, mut writer) = split(stream);
    let session_id = random_session_id().map_err(LinkError::Broken)?;
    let mut bridge = Bridge::new(session_id, clock.now());
    while !worker.with(|rooms| rooms.is_stopping()) {
        step(&mut reader, &mut writer, clock, &mut bridge, worker).await?;
    }
    bridge.end_session();
    let _ = timeout(LEAVE_TIMEOUT, flush(&mut writer, clock, &mut bridge)).await;
    Ok(())
}

/// Waits for something to happen, and handles it.
async fn step(
    reader: &mut ReadHalf<LinkStream>,
    writer: &mut WriteHalf<LinkStream>,
    clock: &TokioClock,
    bridge: &mut Bridge,
    worker: &Worker<BoardRooms>,
) -> Result<(), LinkError> {
    /// How long clients are sent to before others have their turn.
    const TURN: Duration = Duration::from_millis(1);
    let (has_flushed, join_deadline) = worker.with(|rooms| {
        let now = Instant::now();
        rooms.send_backlog(bridge);
        (rooms.flush(now + TURN), rooms.handle_timeout(now))
    });
    if !has_flushed {
        yield_now().await;
    }
    let mut bytes = [0; 4096];
    let link_deadline = clock.at(bridge.poll_timeout());
    let deadline = join_deadline.map_or(link_deadline, |at| at.min(link_deadline));
    let unsent = bridge.unsent(clock.now());
    tokio::select! {
        read = reader.read(&mut bytes) => {
            let read = read.map_err(LinkError::Broken)?;
            if read == 0 {
                return Err(LinkError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            worker.with(|rooms| {
                bridge.handle_input(&bytes[..read], clock.now(), |message| rooms.handle_message(message))
            })?;
        }
        written = writer.write(unsent), if !unsent.is_empty() => {
            let written = written.map_err(LinkError::Broken)?;
            bridge.sent(written, clock.now());
        }
        () = worker.wait(Some(deadline)), if has_flushed => {}
        () = core::future::ready(()), if !has_flushed => {}
    }
    bridge.handle_timeout(clock.now())?;
    Ok(())
}

/// Writes everything that the bridge has to send.
async fn flush(
    writer: &mut WriteHalf<LinkStream>,
    clock: &TokioClock,
    bridge: &mut Bridge,
) -> io::Result<()> {
    loop {
        let now = clock.now();
        let unsent = bridge.unsent(now);
        if unsent.is_empty() {
            return writer.flush().await;
        }
        let written = writer.write(unsent).await?;
        bridge.sent(written, now);
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
