//! A worker whose rooms run on a board, at the other end of a link.
//!
//! Connections send it the same commands as any worker. When the link breaks or the board restarts,
//! the clients are closed with 1012 and the link is reopened.

mod address;
mod session;

pub use self::address::{AddressError, BoardAddress};

use self::{
    address::LinkStream,
    session::{BoardSession, LinkError},
};
use crate::rooms::command::Command;
use core::time::Duration;
use stateroom_wasmi_host::{Clock, driver::tokio::TokioClock};
use stateroom_wasmi_link::{Bridge, SessionError};
use std::{io, num::NonZeroU32};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::{mpsc, oneshot},
    time::{sleep_until, timeout},
};

/// Time between two attempts to open the link.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// Time to tell the board that the bridge leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs until the server stops.
pub(crate) async fn run(
    address: BoardAddress,
    max_tokens: usize,
    mut commands: mpsc::Receiver<Command>,
) {
    let clock = TokioClock::new();
    let mut session = BoardSession::new(max_tokens);
    let mut last_error = None;
    loop {
        let opened = tokio::select! {
            opened = address.open() => opened,
            reply = run_disconnected(&mut session, &mut commands) => {
                return stop(&mut session, reply);
            }
        };
        let reason = match opened {
            Ok(stream) => {
                last_error = None;
                log::info!("the link to {address} is open");
                match run_session(stream, &clock, &mut session, &mut commands).await {
                    Ended::Stopped(reply) => return stop(&mut session, reply),
                    Ended::LinkLost(reason) => reason,
                }
            }
            Err(error) => LinkError::Broken(error),
        };
        // Log each distinct error once, not on every retry.
        let text = reason.to_string();
        if last_error.as_ref() != Some(&text) {
            log::warn!("cannot reach the board at {address}: {text}");
            last_error = Some(text);
        }
        session.on_link_lost(&reason);
        let pause = tokio::time::sleep(RECONNECT_DELAY);
        tokio::select! {
            () = pause => {}
            reply = run_disconnected(&mut session, &mut commands) => {
                return stop(&mut session, reply);
            }
        }
    }
}

/// Where to confirm a stop; none if all senders of commands are gone.
type StopReply = Option<oneshot::Sender<()>>;

/// How a session has ended.
enum Ended {
    Stopped(StopReply),
    LinkLost(LinkError),
}

fn stop(session: &mut BoardSession, reply: StopReply) {
    session.stop();
    if let Some(reply) = reply {
        let _ = reply.send(());
    }
}

/// Handles commands while the link is down, until the server stops.
async fn run_disconnected(
    session: &mut BoardSession,
    commands: &mut mpsc::Receiver<Command>,
) -> StopReply {
    while let Some(command) = commands.recv().await {
        if let Some(reply) = session.handle_command(command) {
            return Some(reply);
        }
    }
    None
}

/// Runs a session with the board until the link breaks.
async fn run_session(
    stream: LinkStream,
    clock: &TokioClock,
    session: &mut BoardSession,
    commands: &mut mpsc::Receiver<Command>,
) -> Ended {
    let (mut reader, mut writer) = split(stream);
    let session_id = match random_session_id() {
        Ok(id) => id,
        Err(error) => return Ended::LinkLost(LinkError::Broken(error)),
    };
    let mut bridge = Bridge::new(session_id, clock.now());
    loop {
        let stepped = step(
            &mut reader,
            &mut writer,
            clock,
            &mut bridge,
            session,
            commands,
        )
        .await;
        match stepped {
            Ok(None) => {}
            Ok(Some(reply)) => {
                bridge.end_session();
                let _ = timeout(LEAVE_TIMEOUT, flush(&mut writer, clock, &mut bridge)).await;
                return Ended::Stopped(reply);
            }
            Err(reason) => return Ended::LinkLost(reason),
        }
    }
}

/// Waits for one event and handles it; returns the reply of a stop.
async fn step(
    reader: &mut ReadHalf<LinkStream>,
    writer: &mut WriteHalf<LinkStream>,
    clock: &TokioClock,
    bridge: &mut Bridge,
    session: &mut BoardSession,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<Option<StopReply>, LinkError> {
    session.send_backlog(bridge);
    let mut bytes = [0; 4096];
    let deadline = clock.at(bridge.poll_timeout());
    let now = clock.now();
    let unsent = bridge.unsent(now);
    tokio::select! {
        read = reader.read(&mut bytes) => {
            let read = read.map_err(LinkError::Broken)?;
            if read == 0 {
                return Err(LinkError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            bridge.handle_input(&bytes[..read], clock.now(), |message| session.handle_message(message))?;
        }
        written = writer.write(unsent), if !unsent.is_empty() => {
            let written = written.map_err(LinkError::Broken)?;
            bridge.sent(written, clock.now());
        }
        command = commands.recv() => match command {
            Some(command) => return Ok(session.handle_command(command).map(Some)),
            None => return Ok(Some(None)),
        },
        () = sleep_until(deadline) => {}
    }
    bridge.handle_timeout(clock.now())?;
    Ok(None)
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
