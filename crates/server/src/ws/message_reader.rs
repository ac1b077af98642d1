//! The messages in what a client sends.

use std::io::{self, Cursor, Read, Write};
use tungstenite::{
    Error,
    error::{CapacityError, ProtocolError},
    protocol::{
        CloseFrame, Message, Role, WebSocketConfig, WebSocketContext,
        frame::{FrameHeader, coding::CloseCode},
    },
};

/// Assembles messages, and replies to pings and to a close. It does no I/O: what was read is handed
/// to it, and its replies go into the client's queue.
#[derive(Debug)]
pub(crate) struct MessageReader {
    context: WebSocketContext,
    /// Bytes left of the frame that is being read.
    frame_left: u64,
    /// Nothing more can be read after an error.
    is_over: bool,
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message.
    Message(Message),
    /// A ping or a pong.
    Control,
    /// A frame that completes no message.
    Fragment,
    /// No whole frame.
    Nothing,
}

/// Why no more messages can be read.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// The other end closed, with a frame if it has sent one; [`close`](MessageReader::close) queues the
    /// reply.
    Closed(Option<CloseFrame>),
    /// It violates the protocol or a limit; to be closed with this frame.
    Violation(CloseFrame),
}

impl MessageReader {
    pub(crate) fn new(max_message_bytes: usize) -> Self {
        Self::of(Role::Server, max_message_bytes)
    }

    /// Of a connection between two nodes: at the end that takes it, or at the one that has opened it. Frames
    /// need no mask, which is for proxies that take them for HTTP.
    pub(crate) fn of_peer(role: Role, max_message_bytes: usize) -> Self {
        let mut reader = Self::of(role, max_message_bytes);
        let accept = |config: &mut WebSocketConfig| config.accept_unmasked_frames = true;
        reader.context.set_config(accept);
        reader
    }

    fn of(role: Role, max_message_bytes: usize) -> Self {
        /// What a connection keeps to assemble frames in; longer ones take more while they are read.
        const BUFFER_BYTES: usize = 1 << 10;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            // The queue is the buffer.
            .write_buffer_size(0)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        Self {
            context: WebSocketContext::new(role, Some(config)),
            frame_left: 0,
            is_over: false,
        }
    }

    /// Reads the next frame from the front of `input`, from which it removes what it has read. If it
    /// returns [`Received::Nothing`], what is left there is the beginning of a frame's header.
    pub(crate) fn read(
        &mut self,
        input: &mut &[u8],
        replies: &mut impl Write,
    ) -> Result<Received, ReadEnd> {
        if self.is_over {
            return Err(ReadEnd::Closed(None));
        }
        let received = self.read_frame(input, replies);
        self.is_over = received.is_err();
        received
    }

    fn read_frame(
        &mut self,
        input: &mut &[u8],
        replies: &mut impl Write,
    ) -> Result<Received, ReadEnd> {
        if self.frame_left == 0 && (input.is_empty() || !self.begin_frame(input)?) {
            return Ok(Received::Nothing);
        }
        let mut io = FrameIo {
            input,
            frame_left: &mut self.frame_left,
            replies,
        };
        match self.context.read(&mut io) {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => Ok(Received::Message(message)),
            Ok(Message::Close(frame)) => Err(ReadEnd::Closed(frame)),
            Ok(_) => {
                // Queues the reply to a ping.
                self.context.flush(&mut io).map_err(ReadEnd::of)?;
                Ok(Received::Control)
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(match self.frame_left {
                    0 => Received::Fragment,
                    _ => Received::Nothing,
                })
            }
            Err(error) => Err(ReadEnd::of(error)),
        }
    }

    /// Whether nothing more is read: the client closed, or violated the protocol or a limit.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Queues a close frame: the reply if the client has closed, and else this one.
    pub(crate) fn close(&mut self, frame: Option<CloseFrame>, queue: &mut impl Write) {
        self.send(queue, |context, io| context.close(io, frame));
    }

    /// Queues a ping, unless the client has closed.
    pub(crate) fn ping(&mut self, queue: &mut impl Write) {
        let ping = Message::Ping(Default::default());
        self.send(queue, |context, io| context.write(io, ping));
    }

    fn send<W: Write>(
        &mut self,
        queue: &mut W,
        send: impl FnOnce(&mut WebSocketContext, &mut FrameIo<'_, '_, W>) -> Result<(), Error>,
    ) {
        let mut io = FrameIo {
            input: &mut &[][..],
            frame_left: &mut 0,
            replies: queue,
        };
        // Fails once the connection is closed, also with the reply to the client's close.
        let _ = send(&mut self.context, &mut io);
    }

    /// Notes the length of the frame that begins in `input`; returns false if its header is incomplete.
    fn begin_frame(&mut self, input: &[u8]) -> Result<bool, ReadEnd> {
        let mut input = Cursor::new(input);
        let header = FrameHeader::parse(&mut input).map_err(ReadEnd::of)?;
        let Some((header, payload)) = header else {
            return Ok(false);
        };
        // RFC 6455, 5.2: a length is below 2^63, and encoded in as few bytes as possible.
        if payload >> 63 != 0 || input.position() != header.len(payload) as u64 {
            let reason = "the length of a frame is not encoded as it must be";
            return Err(ReadEnd::Violation(close_frame(1002, reason)));
        }
        self.frame_left = payload + input.position();
        Ok(true)
    }
}

/// What tungstenite reads from and writes to: it reads one frame, and then finds that there is no more,
/// so that each frame is counted.
struct FrameIo<'a, 'i, W> {
    input: &'a mut &'i [u8],
    frame_left: &'a mut u64,
    replies: &'a mut W,
}

impl<W> Read for FrameIo<'_, '_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let frame = usize::try_from(*self.frame_left).unwrap_or(usize::MAX);
        let length = buffer.len().min(frame).min(self.input.len());
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (read, rest) = self.input.split_at(length);
        buffer[..length].copy_from_slice(read);
        *self.input = rest;
        *self.frame_left -= length as u64;
        Ok(length)
    }
}

impl<W: Write> Write for FrameIo<'_, '_, W> {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.replies.write(frame)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadEnd {
    fn of(error: Error) -> Self {
        let (code, reason) = match error {
            Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
                (1009, format!("the message exceeds {max_size} bytes"))
            }
            Error::Utf8(_) => (1007, "the text is not UTF-8".into()),
            Error::Protocol(
                error @ (ProtocolError::ReceivedAfterClosing
                | ProtocolError::ResetWithoutClosingHandshake),
            ) => {
                log::debug!("{error}");
                return Self::Closed(None);
            }
            Error::Protocol(error) => (1002, error.to_string()),
            _ => return Self::Closed(None),
        };
        Self::Violation(close_frame(code, &reason))
    }
}

/// A close frame, with as much of the reason as fits into one.
pub(crate) fn close_frame(code: u16, reason: &str) -> CloseFrame {
    // RFC 6455: the payload of a control frame is at most 125 bytes, two of which are the code.
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    CloseFrame {
        code: CloseCode::from(code),
        reason: reason[..end].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame (RFC 6455, 5.2).
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let length = u8::try_from(payload.len()).expect("short");
        assert!(length < 126);
        let mut frame = vec![first, 0x80 | length];
        frame.extend(MASK);
        frame.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        frame
    }

    /// What is read, as text, and the replies, if the input comes in pieces of this length.
    fn read(input: &[u8], piece: usize) -> (Vec<String>, Vec<u8>) {
        let mut reader = MessageReader::new(100);
        let (mut received, mut replies) = (Vec::new(), Vec::new());
        let mut kept = Vec::new();
        for piece in input.chunks(piece) {
            kept.extend_from_slice(piece);
            let mut input = &kept[..];
            loop {
                match reader.read(&mut input, &mut replies) {
                    Ok(Received::Nothing) => break,
                    Ok(Received::Message(message)) => received.push(message.to_string()),
                    Ok(other) => received.push(format!("{other:?}")),
                    Err(ReadEnd::Closed(_)) => {
                        received.push("closed".into());
                        reader.close(None, &mut replies);
                        return (received, replies);
                    }
                    Err(ReadEnd::Violation(close)) => {
                        received.push(u16::from(close.code).to_string());
                        return (received, replies);
                    }
                }
            }
            kept = input.to_vec();
        }
        (received, replies)
    }

    /// Whatever the pieces in which the input comes, this is read.
    fn check(input: &[u8], expected: &[&str], replies: &[u8]) {
        for piece in 1..=input.len() {
            let (read, replied) = read(input, piece);
            assert_eq!(read, expected, "in pieces of {piece}");
            assert_eq!(replied, replies, "in pieces of {piece}");
        }
    }

    #[test]
    fn each_frame_is_counted() {
        let input = [
            frame(0x81, b"hello"),
            frame(0x01, b"in "),
            frame(0x00, b""),
            frame(0x89, b"?"),
            frame(0x80, b"parts"),
            frame(0x8a, b""),
            frame(0x82, b"\x01"),
            frame(0x88, &1000_u16.to_be_bytes()),
        ]
        .concat();
        let expected = [
            "hello", "Fragment", "Fragment", "Control", "in parts", "Control", "\u{1}", "closed",
        ];
        check(&input, &expected, b"\x8a\x01?\x88\x02\x03\xe8");
    }

    /// RFC 6455, 5.2: the most significant bit of a length is zero, and its encoding minimal.
    #[test]
    fn lengths_are_encoded_as_they_must_be() {
        for length in [
            &b"\xfe\0\x05"[..],
            b"\xfe\0\x7d",
            b"\xff\0\0\0\0\0\0\0\x05",
            b"\xff\0\0\0\0\0\0\xff\xff",
            b"\xff\x80\0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let mut input = vec![0x82];
            input.extend(length);
            input.extend([0; 4]);
            check(&input, &["1002"], b"");
        }
    }

    /// Nothing is sent before the reply is asked for, and nothing but it.
    #[test]
    fn a_close_is_replied_to_when_asked_for() {
        let input = frame(0x88, b"\x03\xe8bye");
        let (mut reader, mut replies) = (MessageReader::new(100), Vec::new());
        let end = reader.read(&mut &input[..], &mut replies);
        assert!(matches!(end, Err(ReadEnd::Closed(Some(_)))), "{end:?}");
        assert!(reader.is_over());
        reader.ping(&mut replies);
        assert_eq!(replies, b"");
        reader.close(Some(close_frame(1011, "too late")), &mut replies);
        reader.close(None, &mut replies);
        assert_eq!(replies, b"\x88\x05\x03\xe8bye");
    }

    #[test]
    fn violations_close_with_their_code() {
        check(&frame(0x81, b"a\xff"), &["1007"], b"");
        check(&frame(0x80, b""), &["1002"], b"");
        check(&frame(0xc1, b""), &["1002"], b"");
        check(&[0x81, 0], &["1002"], b"");
        let long = [0x82, 0x80 | 101, 0, 0, 0, 0];
        check(&long, &["1009"], b"");
        let longest = [
            0x82, 0xff, 127, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
        ];
        check(&longest, &["1009"], b"");
        let fragments = [frame(0x02, &[0; 60]), frame(0x80, &[0; 60])].concat();
        check(&fragments, &["Fragment", "1009"], b"");
    }
}
