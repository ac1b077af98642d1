//! A connection whose client speaks `stateroom.resume.1`.

use crate::{
    rooms::{Claim, Hello, Rooms, trials::Suspicion, worker},
    ws::connection::{ConnectionKey, End},
};
use stateroom_wasmi_host::{ClientId, MessagePayload, RoomKey};
use stateroom_wasmi_resume::{Frame, InvalidFrame};
use tungstenite::{Message, protocol::CloseFrame};

/// What a client does that speaks the protocol.
#[derive(Debug)]
pub(crate) enum Resuming {
    /// It does not speak it.
    No,
    /// It has not said hello yet: the room that it will join, and its token.
    BeforeHello(Box<Destination>),
    Yes,
}

/// Where a connection leads.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) room: Box<str>,
    pub(crate) token: Option<Box<str>>,
    /// The secret of the session, if it is a gateway's.
    pub(crate) session: Option<Box<str>>,
    /// What that knows of nodes that have ended.
    pub(crate) suspicion: Suspicion,
}

/// What a message of a client is for.
pub(crate) enum Passed<'m> {
    /// For its room.
    Message(MessagePayload<'m>),
    /// It was for the server.
    Done,
}

/// Reads a message of a client that speaks the protocol, and does what it says unless it is for the room.
pub(crate) fn receive<'m>(
    rooms: &mut impl Rooms,
    key: ConnectionKey,
    message: &'m Message,
) -> Result<Passed<'m>, End> {
    let frame = match message {
        Message::Text(text) => Frame::from_text(text),
        Message::Binary(bytes) => Frame::from_bytes(bytes),
        // The reader returns no others.
        _ => return Ok(Passed::Done),
    };
    let frame = frame.map_err(|InvalidFrame| violation("a frame that is none of the protocol"))?;
    let connection = rooms.clients().get(key).ok_or(End::Lost)?;
    let is_first = matches!(connection.resuming, Resuming::BeforeHello(_));
    match (frame, connection.member) {
        (Frame::Hello(session), _) if is_first => {
            let resuming = core::mem::replace(&mut connection.resuming, Resuming::Yes);
            if let Resuming::BeforeHello(destination) = resuming {
                let session = session.map(|(received, secret)| (secret.into(), received));
                join(rooms, key, *destination, Hello(session));
            }
            Ok(Passed::Done)
        }
        _ if is_first => Err(violation("the first frame must be a hello")),
        (Frame::Text(text), _) => Ok(Passed::Message(MessagePayload::Text(text))),
        (Frame::Bytes(bytes), _) => Ok(Passed::Message(MessagePayload::Bytes(bytes))),
        (Frame::Ack(received), Some(member)) => {
            let acknowledged = rooms.clients().acknowledged(member, received);
            acknowledged.map_err(|_| violation("an acknowledgement that cannot be"))?;
            Ok(Passed::Done)
        }
        (Frame::Goodbye, Some(member)) => {
            rooms.clients().end_session(member);
            Err(End::ByServer {
                frame: CloseFrame {
                    code: 1000.into(),
                    reason: "goodbye".into(),
                },
                drain: true,
            })
        }
        // It is about to be closed.
        (Frame::Ack(_) | Frame::Goodbye, None) => Ok(Passed::Done),
        (Frame::Hello(_) | Frame::New(_) | Frame::Resumed(_), _) => {
            Err(violation("a frame that must not come now"))
        }
    }
}

fn join(rooms: &mut impl Rooms, key: ConnectionKey, destination: Destination, hello: Hello) {
    let claim = Claim {
        token: destination.token,
        session: destination.session,
        suspicion: destination.suspicion,
        hello: Some(hello),
    };
    worker::join(rooms, key, &destination.room, claim);
}

/// The client's mistake: its session may go on over another connection.
fn violation(reason: &'static str) -> End {
    End::ByServer {
        frame: CloseFrame {
            code: 1008.into(),
            reason: reason.into(),
        },
        drain: true,
    }
}

/// Whether a message of a client with a session was accepted before, over another connection.
pub(crate) fn is_duplicate(rooms: &mut impl Rooms, member: (RoomKey, ClientId)) -> bool {
    rooms.clients().is_duplicate(member.0, member.1)
}
