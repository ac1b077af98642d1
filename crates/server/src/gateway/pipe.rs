//! Clients that speak `stateroom.resume.1`: their bytes are passed on.

use super::{
    Routes,
    link::{MAX_PAUSE, changed},
    peers::Forwarded,
};
use crate::{
    directory::Location,
    rooms::{handover::NewConnection, trials::Suspicion},
    stream::Stream,
    ws::message_reader::{MessageReader, close_frame},
};
use core::{future::Future, time::Duration};
use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    time::{Instant, sleep, timeout, timeout_at},
};

impl Routes {
    /// Hands a client to its room if that is here, or passes on what it and the room's node say until either
    /// has ended, the room is elsewhere, or `stop` resolves. Then the client's connection is lost, and it
    /// connects again.
    pub(crate) async fn pipe(&self, client: NewConnection, stop: impl Future<Output = ()>) {
        let address = client.address;
        tokio::select! {
            piped = self.try_pipe(client) => if let Err(error) = piped {
                log::debug!("the connection of {address} was not passed on: {error}");
            },
            () = stop => {}
        }
    }

    async fn try_pipe(&self, connection: NewConnection) -> io::Result<()> {
        let client = Forwarded {
            room: connection.room.clone(),
            token: connection.token.clone(),
            address: connection.permit.peer(),
            session: None,
            order: connection.order,
            suspicion: Suspicion::default(),
        };
        let until = Instant::now() + self.owner_timeout;
        let mut changes = self.directory.changes();
        let (mut node, location) = loop {
            changes.mark_unchanged();
            let location = self.directory.locate(&client.room);
            if location == Location::Here {
                self.rooms.connect(connection);
                return Ok(());
            }
            // Fails if nobody has the room.
            if let Ok((node, _)) = self.open(location, &client).await {
                break (node, location);
            }
            let trying_again = async {
                tokio::select! {
                    () = changed(&mut changes) => {}
                    () = sleep(MAX_PAUSE), if location != Location::Unknown => {}
                }
            };
            if timeout_at(until, trying_again).await.is_err() {
                return refuse(connection).await;
            }
        };
        let passing = async {
            node.write_all(&connection.unread).await?;
            let mut stream = Stream::attach(connection.stream)?;
            // Counts it until it ends.
            let _permit = connection.permit;
            copy_bidirectional(&mut stream, &mut node).await.map(drop)
        };
        tokio::select! {
            passed = passing => passed,
            () = self.moved(&mut changes, &client.room, location) => Ok(()),
        }
    }
}

/// Closes a client whose room cannot be reached; it tries again.
async fn refuse(connection: NewConnection) -> io::Result<()> {
    /// Time for the client to take that, and to close its side. If the socket was closed before its hello is read,
    /// it might not see why.
    const TIMEOUT: Duration = Duration::from_secs(2);
    let mut frame = Vec::new();
    let reason = "the node of the room cannot be reached";
    MessageReader::new(0).close(Some(close_frame(1013, reason)), &mut frame);
    let mut stream = Stream::attach(connection.stream)?;
    let closing = async {
        stream.write_all(&frame).await?;
        stream.shutdown().await?;
        let mut discarded = [0; 1 << 10];
        while stream.read(&mut discarded).await? > 0 {}
        Ok(())
    };
    timeout(TIMEOUT, closing).await?
}
