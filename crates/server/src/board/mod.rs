//! A board in the place of the workers: its rooms run at the other end of a line, and their clients
//! connect here.
//!
//! To connections it is a worker like any other. When the line breaks, or the board starts again, the
//! clients are closed with 1012, and the line is opened again.

mod address;
mod session;

pub use self::address::{AddressError, BoardAddress};

use self::{
    address::Line,
    session::{BoardSession, LinkError},
};
use crate::rooms::command::Command;
use core::time::Duration;
use stateroom_wasmi_host::{Clock, Instant, driver::tokio::TokioClock};
use stateroom_wasmi_link::{Bridge, SessionError};
use std::{io, num::NonZeroU32, string::String, string::ToString};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::{mpsc, oneshot},
    time::{sleep_until, timeout},
};

/// Time between two attempts to open a line.
const OPEN_AGAIN: Duration = Duration::from_millis(500);

/// Time for a board to hear that the bridge leaves.
const LEAVE: Duration = Duration::from_millis(500);

/// Runs until the server stops.
pub(crate) async fn run(
    address: BoardAddress,
    max_tokens: usize,
    mut commands: mpsc::Receiver<Command>,
) {
    let clock = TokioClock::new();
    let mut clients = BoardSession::new(max_tokens);
    let mut last_error = None;
    loop {
        let opened = tokio::select! {
            opened = address.open() => opened,
            stopped = refuse_all(&mut clients, &mut commands) => return stop(&mut clients, stopped),
        };
        let reason = match opened {
            Ok(line) => {
                last_error = None;
                log::info!("the line to {address} is open");
                match talk(line, &clock, &mut clients, &mut commands).await {
                    Ended::Stopped(reply) => return stop(&mut clients, reply),
                    Ended::Lost(reason) => reason,
                }
            }
            Err(error) => LinkError::Broken(error),
        };
        // Once, and not each time that it is tried again.
        let text = reason.to_string();
        if last_error.as_ref() != Some(&text) {
            log::warn!("the board at {address} cannot be reached: {text}");
            last_error = Some(text);
        }
        clients.lose(&reason);
        let pause = tokio::time::sleep(OPEN_AGAIN);
        tokio::select! {
            () = pause => {}
            stopped = refuse_all(&mut clients, &mut commands) => return stop(&mut clients, stopped),
        }
    }
}

/// Who asked to stop is told when it is done; gone if nobody can ask for anything any more.
type Stopped = Option<oneshot::Sender<()>>;

/// How a talk has ended.
enum Ended {
    Stopped(Stopped),
    Lost(LinkError),
}

fn stop(clients: &mut BoardSession, stopped: Stopped) {
    clients.stop();
    if let Some(reply) = stopped {
        let _ = reply.send(());
    }
}

/// Turns everybody away while there is no line, until the server stops.
async fn refuse_all(clients: &mut BoardSession, commands: &mut mpsc::Receiver<Command>) -> Stopped {
    while let Some(command) = commands.recv().await {
        if let Some(stopped) = clients.command(command) {
            return Some(stopped);
        }
    }
    None
}

/// Talks to a board until the line breaks.
async fn talk(
    line: Line,
    clock: &TokioClock,
    clients: &mut BoardSession,
    commands: &mut mpsc::Receiver<Command>,
) -> Ended {
    let (mut reader, mut writer) = split(line);
    let session = match session() {
        Ok(session) => session,
        Err(error) => return Ended::Lost(LinkError::Broken(error)),
    };
    let mut bridge = Bridge::new(session, clock.now());
    loop {
        let wake = round(
            &mut reader,
            &mut writer,
            clock,
            &mut bridge,
            clients,
            commands,
        )
        .await;
        match wake {
            Ok(None) => {}
            Ok(Some(stopped)) => {
                bridge.end_session();
                let _ = timeout(LEAVE, flush(&mut writer, clock, &mut bridge)).await;
                return Ended::Stopped(stopped);
            }
            Err(reason) => return Ended::Lost(reason),
        }
    }
}

/// Waits for one thing to happen, and does it; answers who asked to stop, if that was it.
async fn round(
    reader: &mut ReadHalf<Line>,
    writer: &mut WriteHalf<Line>,
    clock: &TokioClock,
    bridge: &mut Bridge,
    clients: &mut BoardSession,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<Option<Stopped>, LinkError> {
    clients.send_waiting(bridge);
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
            bridge.handle_input(&bytes[..read], clock.now(), |told| clients.told(told))?;
        }
        written = writer.write(unsent), if !unsent.is_empty() => {
            let written = written.map_err(LinkError::Broken)?;
            bridge.sent(written, clock.now());
        }
        command = commands.recv() => match command {
            Some(command) => return Ok(clients.command(command).map(Some)),
            None => return Ok(Some(None)),
        },
        () = sleep_until(deadline) => {}
    }
    bridge.handle_timeout(clock.now())?;
    Ok(None)
}

/// Writes all that is there to write.
async fn flush(
    writer: &mut WriteHalf<Line>,
    clock: &TokioClock,
    bridge: &mut Bridge,
) -> io::Result<()> {
    loop {
        let now: Instant = clock.now();
        let unsent = bridge.unsent(now);
        if unsent.is_empty() {
            return writer.flush().await;
        }
        let written = writer.write(unsent).await?;
        bridge.sent(written, now);
    }
}

/// A session that was not there before, as far as chance goes.
fn session() -> io::Result<NonZeroU32> {
    Ok(NonZeroU32::new(getrandom::u32()?).unwrap_or(NonZeroU32::MIN))
}

impl From<SessionError> for LinkError {
    fn from(lost: SessionError) -> Self {
        Self::Session(lost)
    }
}

/// What a server of a board's rooms is called in `/rooms`.
pub(crate) fn name(address: &BoardAddress) -> String {
    std::format!("the board at {address}")
}
