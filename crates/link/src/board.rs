//! The board's end of a link: frames in, events for the rooms; and the frames of the rooms out.

use super::{
    arq::Order,
    framing::{Deframer, Frame, Noise},
    messages::{Hello, Reason, VERSION, kind, room_and_client},
    transport::{LinkTransport, MAX_ROOM_ID_BYTES},
    wire::Wire,
};
use core::{fmt, time::Duration};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, ClosedRoom, Event, EventError, Host, Instant, MessagePayload, RoomKey,
    Transport,
};

/// Bytes that are read at once.
const READ_BYTES: usize = 64;

/// What a link is made with, besides its wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkOptions {
    /// Bytes that the other side may send before it hears whether they were taken: what the UART's
    /// driver buffers while nobody reads. One frame may be sent always. Default 0: one frame after the
    /// other.
    pub receive_bytes: u32,
    /// Time after which a silent other side is taken for gone; its clients leave their rooms. It
    /// gives a sign of life each second. Default 10 s.
    pub silence: Duration,
}

impl LinkOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            receive_bytes: 0,
            silence: Duration::from_secs(10),
        }
    }

    stateroom_wasmi_host::setters! { receive_bytes: u32, silence: Duration }
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The board's end of a link: reads events from a [`Wire`] and writes what the rooms say.
///
/// The transport of the host is a [`LinkTransport`], or one that has a `LinkTransport` in it and
/// gives it by `AsMut`. See [the module](super) for an example.
///
/// The rooms that a link carries are the other side's: when it goes, all of their clients leave.
pub struct Link<W, const N: usize> {
    wire: W,
    options: LinkOptions,
    deframer: Deframer<N>,
    session: Session,
}

/// What the link knows of the other side.
#[derive(Default)]
struct Session {
    number: u32,
    /// When the other side was last heard of.
    heard: Instant,
    /// What there was no place for.
    refused: Option<Refused>,
}

/// Where an event found no place.
#[derive(Clone, Copy)]
enum Refused {
    /// In the inbox of a room, where so many events waited.
    ByRoom(RoomKey, usize),
    /// Among what is to be said to the other side.
    ByLink,
}

/// Why a link does not carry a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CarryError {
    /// The host has no such room.
    UnknownRoom,
    /// The link carries [`MAX_ROOMS`](super::MAX_ROOMS) already.
    TooManyRooms,
    /// The room's id is longer than [`MAX_ROOM_ID_BYTES`].
    IdTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

impl fmt::Display for CarryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoom => f.write_str("there is no such room"),
            Self::TooManyRooms => write!(f, "the link carries {} rooms already", super::MAX_ROOMS),
            Self::IdTooLong { bytes } => {
                write!(
                    f,
                    "the room's id is {bytes} bytes long, more than the limit of {MAX_ROOM_ID_BYTES}"
                )
            }
        }
    }
}

impl core::error::Error for CarryError {}

impl<W: Wire, const N: usize> Link<W, N> {
    /// A link over this wire, with default options.
    pub fn new(wire: W) -> Self {
        Self::with_options(wire, LinkOptions::default())
    }

    /// A link over this wire.
    pub fn with_options(wire: W, options: LinkOptions) -> Self {
        Self {
            wire,
            options,
            deframer: Deframer::new(),
            session: Session::default(),
        }
    }

    /// Has the link carry a room, from now on until it ends.
    ///
    /// # Errors
    ///
    /// If there are too many, or the room's id is too long.
    pub fn carry<C, T>(&mut self, host: &mut Host<C, T>, room: RoomKey) -> Result<(), CarryError>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let bytes = host.room(room).ok_or(CarryError::UnknownRoom)?.id().len();
        if bytes > MAX_ROOM_ID_BYTES {
            return Err(CarryError::IdTooLong { bytes });
        }
        link_of(host)
            .carry(room)
            .map(drop)
            .ok_or(CarryError::TooManyRooms)
    }

    /// Reads what came, lets the host work within the budget, and writes as much as the wire takes.
    ///
    /// Answers when to poll again, as [`Host::poll`] does; also poll when something came in, and,
    /// while the link [has something to write](Self::is_writing), when the wire takes more.
    ///
    /// # Errors
    ///
    /// Those of the wire. Nothing is lost by them but what the wire lost; poll again if it recovers.
    pub fn poll<C, T>(
        &mut self,
        host: &mut Host<C, T>,
        budget: Budget,
    ) -> Result<Option<Instant>, W::Error>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let has_more = self.read(host)?;
        self.session.check_silence(host, self.options.silence);
        let wake_at = host.poll(budget);
        self.session.go_on(host);
        introduce_rooms(host);
        self.write(host)?;
        if has_more {
            return Ok(Some(Instant::ZERO));
        }
        let link = link_of(host);
        let silent_at = link
            .has_session()
            .then(|| self.session.heard + self.options.silence);
        Ok([wake_at, link.arq.deadline(), silent_at]
            .into_iter()
            .flatten()
            .min())
    }

    /// Takes a room that has ended, as [`Host::poll_closed`] does, and tells the other side of it. If
    /// there is no place to do so, the room is not taken yet.
    pub fn poll_closed<C, T>(&mut self, host: &mut Host<C, T>) -> Option<ClosedRoom>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        if !link_of(host).has_place_for_closed() {
            return None;
        }
        let closed = host.poll_closed()?;
        link_of(host).forget_room(closed.key, closed.fault.as_ref());
        Some(closed)
    }

    /// Whether the wire did not take all that was there to write when it was last polled.
    pub fn is_writing<C, T>(&self, host: &mut Host<C, T>) -> bool
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let now = host.clock().now();
        !link_of(host).unsent(now).is_empty()
    }

    /// The wire.
    pub const fn wire(&self) -> &W {
        &self.wire
    }

    /// The wire.
    pub const fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Reads no more than a buffer full at a time, so that whoever sends without end does not keep
    /// the host from its work. Answers whether there may be more.
    fn read<C, T>(&mut self, host: &mut Host<C, T>) -> Result<bool, W::Error>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let mut bytes = [0; READ_BYTES];
        for _ in 0..N.div_ceil(READ_BYTES) {
            let read = self.wire.read(&mut bytes)?;
            if read == 0 {
                return Ok(false);
            }
            for byte in bytes.iter().take(read) {
                match self.deframer.push(*byte) {
                    Some(Ok(frame)) => self.session.take(frame, host, self.options),
                    Some(Err(Noise)) if link_of(host).has_session() => link_of(host).arq.missing(),
                    Some(Err(Noise)) => {}
                    None => {}
                }
            }
        }
        Ok(true)
    }

    fn write<C, T>(&mut self, host: &mut Host<C, T>) -> Result<(), W::Error>
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let now = host.clock().now();
        let link = link_of(host);
        // More than what is there comes only by what is read.
        loop {
            let bytes = link.unsent(now);
            if bytes.is_empty() {
                return Ok(());
            }
            match self.wire.write(bytes)? {
                0 => return Ok(()),
                written => link.arq.sent(written, now),
            }
        }
    }
}

impl Session {
    fn take<C, T, const N: usize>(
        &mut self,
        frame: Frame<'_>,
        host: &mut Host<C, T>,
        options: LinkOptions,
    ) where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        self.heard = host.clock().now();
        let link = link_of(host);
        match frame.kind {
            kind::HELLO => self.greeted(frame.body, host, options.receive_bytes),
            _ if !link.has_session() => link.end_session(),
            kind::ACK | kind::RESEND | kind::BUSY | kind::PING => {
                link.arq.heard(frame.kind, frame.number)
            }
            // A later version may know it.
            ..kind::NUMBERED => {}
            _ => match link.arq.order(frame.number) {
                Order::Next => match deliver(frame, host) {
                    Ok(()) => {
                        self.refused = None;
                        link_of(host).arq.accept();
                    }
                    Err(refused) => {
                        self.refused = Some(refused);
                        link_of(host).arq.refuse();
                    }
                },
                Order::Old => link.arq.old(),
                Order::Early => link.arq.missing(),
            },
        }
    }

    /// The other side begins a session, or asks once more for the answer to that.
    fn greeted<C, T, const N: usize>(
        &mut self,
        body: &[u8],
        host: &mut Host<C, T>,
        receive_bytes: u32,
    ) where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let Some(hello) = Hello::from_bytes(body) else {
            return;
        };
        if link_of(host).has_session() && hello.session == self.number && hello.version == VERSION {
            // It greets until it is answered; nothing but greetings came since.
            link_of(host).arq.greet(super::transport::greeting::<N>(
                hello.session,
                receive_bytes,
            ));
            return;
        }
        self.end(host);
        if hello.version == VERSION && hello.session != 0 {
            self.number = hello.session;
            link_of(host).start(hello, receive_bytes);
        }
    }

    fn check_silence<C, T, const N: usize>(&mut self, host: &mut Host<C, T>, silence: Duration)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        if link_of(host).has_session() && host.clock().now() >= self.heard + silence {
            log!(
                info,
                "the other end of the link is silent; its clients leave"
            );
            self.end(host);
        }
    }

    /// Ends the session: all clients leave.
    fn end<C, T, const N: usize>(&mut self, host: &mut Host<C, T>)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        self.refused = None;
        link_of(host).end_session();
        for place in 0..super::MAX_ROOMS {
            let Some(key) = link_of(host).room_at(place) else {
                continue;
            };
            while let Some(client) = host
                .room(key)
                .and_then(|room| room.clients().last().copied())
            {
                // A closed room has no use for it.
                if host.handle_event(key, Event::Disconnect(client)).is_err() {
                    break;
                }
            }
        }
    }

    /// Asks for the event that was refused, when its room has made progress.
    fn go_on<C, T, const N: usize>(&mut self, host: &mut Host<C, T>)
    where
        C: Clock,
        T: Transport + AsMut<LinkTransport<N>>,
    {
        let can_go_on = match self.refused {
            None => false,
            Some(Refused::ByLink) => link_of(host).can_take_events(),
            Some(Refused::ByRoom(key, before)) => host
                .room(key)
                .is_none_or(|room| room.stats().waiting_events < before),
        };
        if can_go_on {
            self.refused = None;
            link_of(host).arq.ready();
        }
    }
}

/// Hands an event to its room, or tells the other side why not. An error is for now alone: nothing
/// has happened.
fn deliver<C, T, const N: usize>(frame: Frame<'_>, host: &mut Host<C, T>) -> Result<(), Refused>
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    if !link_of(host).can_take_events() {
        return Err(Refused::ByLink);
    }
    // What is no event, a later version may know.
    let Some((number, client, payload)) = room_and_client(frame.body) else {
        return Ok(());
    };
    let event = match event(frame.kind, client, payload) {
        Some(Ok(event)) => event,
        Some(Err(reason)) => {
            link_of(host).tell_refused(number, client, reason);
            return Ok(());
        }
        None => return Ok(()),
    };
    let key = link_of(host).key(number);
    let waiting = key
        .and_then(|key| host.room(key))
        .map_or(0, |room| room.stats().waiting_events);
    let handled = match key {
        Some(key) => host.handle_event(key, event).map_err(|error| (key, error)),
        None => {
            link_of(host).tell_refused(number, client, Reason::NoSuchRoom);
            return Ok(());
        }
    };
    match (handled, event) {
        (Ok(()), Event::Connect(_)) => link_of(host).expect_join(number, client),
        (Ok(()), _) => {}
        // If nothing waits there, it never fits.
        (Err((key, EventError::InboxFull)), _) if waiting > 0 => {
            return Err(Refused::ByRoom(key, waiting));
        }
        (Err((_, error)), _) => {
            if let Some(reason) = Reason::of(error) {
                link_of(host).tell_refused(number, client, reason);
            }
        }
    }
    Ok(())
}

/// The event that a frame is, if it is one; or what is wrong with it.
fn event(kind: u8, client: ClientId, payload: &[u8]) -> Option<Result<Event<'_>, Reason>> {
    Some(match kind {
        kind::CONNECT => Ok(Event::Connect(client)),
        kind::DISCONNECT => Ok(Event::Disconnect(client)),
        kind::TEXT => match core::str::from_utf8(payload) {
            Ok(text) => Ok(Event::Message(client, MessagePayload::Text(text))),
            Err(_) => Err(Reason::NotUtf8),
        },
        kind::BYTES => Ok(Event::Message(client, MessagePayload::Bytes(payload))),
        _ => return None,
    })
}

/// Tells the other side of rooms that it does not know, as far as there is place.
fn introduce_rooms<C, T, const N: usize>(host: &mut Host<C, T>)
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    while link_of(host).has_session() {
        let Some(key) = link_of(host).unknown_room() else {
            return;
        };
        let mut id = heapless::String::<MAX_ROOM_ID_BYTES>::new();
        let mut message_bytes = 0;
        if let Some(room) = host.room(key) {
            // It was looked at when the room was carried.
            let _ = id.push_str(room.id());
            message_bytes = room.module().limits().max_message_bytes;
        }
        if !link_of(host).introduce(key, &id, message_bytes) {
            return;
        }
    }
}

fn link_of<C, T, const N: usize>(host: &mut Host<C, T>) -> &mut LinkTransport<N>
where
    C: Clock,
    T: Transport + AsMut<LinkTransport<N>>,
{
    host.transport_mut().as_mut()
}

impl<W, const N: usize> fmt::Debug for Link<W, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
