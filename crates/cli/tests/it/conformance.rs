//! The protocol by RFC 6455, whose sections are cited: the same ground as the Autobahn test suite
//! (`.ci/run autobahn`), without anything to install.
//!
//! Each exchange is a connection of its own: a client sends bytes and reads until the server closes.

use super::{
    BINARY, CLOSE, CONTINUATION, FINAL, RawClient, Server, TEXT, eventually, frame_header,
};
use core::future::pending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PING: u8 = 9;
const PONG: u8 = 10;
const ALL: usize = usize::MAX;

/// What a server has sent until it closed the connection. Control frames may be sent between data frames
/// (5.4), so their order is that of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transcript {
    messages: Vec<(u8, Vec<u8>)>,
    pongs: Vec<Vec<u8>>,
    /// The payload of the close frame without the reason.
    close: Vec<u8>,
}

impl Transcript {
    fn closed(code: u16) -> Self {
        Self {
            close: code.to_be_bytes().into(),
            ..Self::default()
        }
    }

    fn message(mut self, opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        self.messages.push((opcode, payload.into()));
        self
    }

    fn pong(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.pongs.push(payload.into());
        self
    }

    /// Reads the frames of a server: none is masked (5.1) or in fragments, each has the shortest length
    /// (5.2), and the last one is the close frame (5.5.1). None if there is no close frame.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut transcript = Self::default();
        loop {
            let (&[first, short], rest) = bytes.split_first_chunk()?;
            let (length, rest) = match short {
                0..126 => (short.into(), rest),
                126 => {
                    let (length, rest) = rest.split_first_chunk()?;
                    (u16::from_be_bytes(*length).into(), rest)
                }
                127 => {
                    let (length, rest) = rest.split_first_chunk()?;
                    (u64::from_be_bytes(*length), rest)
                }
                _ => panic!("a masked frame"),
            };
            let is_shortest = match short {
                0..126 => true,
                126 => length >= 126,
                _ => length > 0xffff,
            };
            assert!(is_shortest, "a length of {length} with {short}");
            assert_eq!(first & 0xf0, FINAL, "a fragment, or a reserved bit");
            let (payload, rest) = rest.split_at_checked(length as usize)?;
            bytes = rest;
            match first & 0x0f {
                opcode @ (TEXT | BINARY) => transcript.messages.push((opcode, payload.into())),
                PONG => transcript.pongs.push(payload.into()),
                CLOSE => {
                    assert_eq!(bytes, b"", "something follows the close frame");
                    transcript.close = payload[..payload.len().min(2)].into();
                    return Some(transcript);
                }
                other => panic!("the opcode {other}"),
            }
        }
    }
}

/// A client's frame, masked (5.3).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = frame_header(first, payload.len());
    frame.extend(MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// A client's close frame.
fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FINAL | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A message in fragments of this length.
fn fragments(opcode: u8, payload: &[u8], length: usize) -> Vec<u8> {
    let mut opcode = opcode;
    let mut frames = Vec::new();
    for fragment in payload.chunks(length) {
        frames.extend(frame(opcode, fragment));
        opcode = CONTINUATION;
    }
    frames.extend(frame(FINAL | opcode, b""));
    frames
}

/// Sends `bytes`, in pieces of at most this length, and expects this transcript, which ends with the end of
/// the stream (7.1.1).
async fn exchange(server: &Server, what: &str, bytes: &[u8], piece: usize, expected: &Transcript) {
    let RawClient(mut stream) = RawClient::join(server, "").await;
    stream.set_nodelay(true).expect("a socket");
    let (mut source, mut sink) = stream.split();
    let send = async {
        for piece in bytes.chunks(piece) {
            // The server may have closed meanwhile; then its frames are what counts.
            if sink.write_all(piece).await.is_err() {
                break;
            }
        }
        pending().await
    };
    let mut received = Vec::new();
    let closed = eventually(what, async {
        tokio::select! {
            closed = source.read_to_end(&mut received) => closed,
            never = send => never,
        }
    });
    let closed = closed.await;
    let transcript = Transcript::parse(&received);
    assert!(
        closed.is_ok() && transcript.as_ref() == Some(expected),
        "{what}: {closed:?} after {transcript:?}"
    );
}

/// [`exchange`] with a close frame behind the bytes, to which the server replies.
async fn accepts(server: &Server, what: &str, bytes: &[u8], piece: usize, expected: &Transcript) {
    let bytes = [bytes, &close(1000, b"")].concat();
    exchange(server, what, &bytes, piece, expected).await;
}

/// Echoes whatever a client sends, as fast as it can.
fn echo_server() -> Server {
    let args = ["--message-rate", "0", "--byte-rate", "0"];
    Server::bundled("echo-c", &args)
}

/// 5.7: the examples of the specification.
#[tokio::test]
async fn the_examples_of_the_specification() {
    let server = echo_server();
    let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let ping = b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let expected = Transcript::closed(1000)
        .message(TEXT, "Hello")
        .pong("Hello");
    for piece in [1, 2, 7, ALL] {
        let bytes = [&hello[..], ping, pong].concat();
        accepts(&server, "the examples", &bytes, piece, &expected).await;
    }
}

/// 5.2: lengths where their encoding changes, and the longest message.
#[tokio::test]
async fn lengths() {
    let server = echo_server();
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        let text = vec![b'*'; length];
        let bytes: Vec<_> = (0..length).map(|i| (i * 7) as u8 | 0x80).collect();
        let what = format!("{length} bytes");
        let frames = [frame(FINAL | TEXT, &text), frame(FINAL | BINARY, &bytes)].concat();
        let expected = Transcript::closed(1000)
            .message(TEXT, text)
            .message(BINARY, bytes);
        for piece in [1, 997, ALL] {
            // Long ones byte by byte would take long, and show nothing else.
            if frames.len() / piece < 200_000 {
                accepts(&server, &what, &frames, piece, &expected).await;
            }
        }
    }
}

/// 5.2: the shortest encoding is required, and the most significant bit is zero.
#[tokio::test]
async fn lengths_that_are_encoded_otherwise() {
    let server = echo_server();
    let zeros = [0; 4 + 125];
    let cases: [(&str, &[u8], usize); 5] = [
        ("0 in two bytes", b"\x82\xfe\0\0", 0),
        ("125 in two bytes", b"\x82\xfe\0\x7d", 125),
        ("125 in eight bytes", b"\x82\xff\0\0\0\0\0\0\0\x7d", 125),
        (
            "65,535 in eight bytes",
            b"\x82\xff\0\0\0\0\0\0\xff\xff",
            125,
        ),
        ("2^63", b"\x82\xff\x80\0\0\0\0\0\0\0", 125),
    ];
    for (what, header, length) in cases {
        let bytes = [header, &zeros[..4 + length]].concat();
        exchange(&server, what, &bytes, ALL, &Transcript::closed(1002)).await;
    }
}

/// 5.5.2 and 5.5.3.
#[tokio::test]
async fn pings_and_pongs() {
    let server = echo_server();
    let longest = [0xfe; 125];
    for payload in [&b""[..], b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb", &longest] {
        let bytes = frame(FINAL | PING, payload);
        let expected = Transcript::closed(1000).pong(payload);
        for piece in [1, ALL] {
            accepts(&server, "a ping", &bytes, piece, &expected).await;
        }
    }
    let (mut bytes, mut expected) = (Vec::new(), Transcript::closed(1000));
    for number in 0..10 {
        bytes.extend(frame(FINAL | PING, &[number]));
        expected = expected.pong([number]);
    }
    accepts(&server, "ten pings", &bytes, ALL, &expected).await;

    let bytes = [
        frame(FINAL | PONG, b""),
        frame(FINAL | PONG, b"unsolicited"),
        frame(FINAL | PING, b"?"),
        frame(FINAL | TEXT, b"Hello"),
    ]
    .concat();
    let expected = Transcript::closed(1000).message(TEXT, "Hello").pong("?");
    accepts(&server, "unsolicited pongs", &bytes, ALL, &expected).await;
}

/// 5.5: control frames have at most 125 bytes.
#[tokio::test]
async fn control_frames_that_are_too_long() {
    let server = echo_server();
    for opcode in [PING, PONG, CLOSE] {
        let what = format!("the opcode {opcode}");
        let bytes = frame(FINAL | opcode, &[3; 126]);
        for piece in [1, ALL] {
            exchange(&server, &what, &bytes, piece, &Transcript::closed(1002)).await;
        }
    }
}

/// 5.2: no extension is negotiated that defines the reserved bits, and the other opcodes are reserved.
/// What came before is replied to, and what follows is not read (7.1.7).
#[tokio::test]
async fn reserved_bits_and_opcodes() {
    let server = echo_server();
    let mut cases = Vec::new();
    for bits in 1..8 {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            cases.push(FINAL | bits << 4 | opcode);
        }
    }
    for opcode in (3..8).chain(11..16) {
        cases.extend([FINAL | opcode, opcode]);
    }
    for first in cases {
        for payload in [&b""[..], b"\x03\xe8"] {
            let bytes = [
                frame(FINAL | TEXT, b"before"),
                frame(first, payload),
                frame(FINAL | PING, b"after"),
                frame(FINAL | TEXT, b"after"),
            ]
            .concat();
            let what = format!("{first:#x} with {payload:?}");
            let expected = Transcript::closed(1002).message(TEXT, "before");
            exchange(&server, &what, &bytes, ALL, &expected).await;
        }
    }
}

/// 5.1: a client masks its frames.
#[tokio::test]
async fn unmasked_frames() {
    let server = echo_server();
    let frames: [&[u8]; 4] = [b"\x81\x05Hello", b"\x82\0", b"\x89\0", b"\x88\x02\x03\xe8"];
    for bytes in frames {
        let what = format!("{bytes:?}");
        exchange(&server, &what, bytes, ALL, &Transcript::closed(1002)).await;
    }
}

/// 5.4.
#[tokio::test]
async fn fragments_with_control_frames_between() {
    let server = echo_server();
    let first = |opcode| frame(opcode, b"one, ");
    let next = frame(CONTINUATION, b"two, ");
    let last = frame(FINAL | CONTINUATION, b"three");
    let ping = frame(FINAL | PING, b"ping");
    let pong = frame(FINAL | PONG, b"pong");
    for opcode in [TEXT, BINARY] {
        let whole = || Transcript::closed(1000).message(opcode, "one, two, three");
        let mut cases = vec![
            (
                "three",
                [&first(opcode)[..], &next, &last].concat(),
                whole(),
            ),
            (
                "a ping between",
                [&first(opcode)[..], &ping, &next, &last].concat(),
                whole().pong("ping"),
            ),
            (
                "a pong between",
                [&first(opcode)[..], &next, &pong, &last].concat(),
                whole(),
            ),
            (
                "pings around each",
                [&ping[..], &first(opcode), &ping, &next, &ping, &last, &ping].concat(),
                whole().pong("ping").pong("ping").pong("ping").pong("ping"),
            ),
            (
                "two messages",
                [
                    &first(opcode)[..],
                    &next,
                    &last,
                    &first(opcode),
                    &next,
                    &last,
                ]
                .concat(),
                whole().message(opcode, "one, two, three"),
            ),
            (
                "empty ones",
                [
                    frame(opcode, b""),
                    frame(CONTINUATION, b""),
                    frame(FINAL | CONTINUATION, b""),
                ]
                .concat(),
                Transcript::closed(1000).message(opcode, ""),
            ),
            ("bytes", fragments(opcode, b"one, two, three", 1), whole()),
        ];
        // The message never ends.
        let unfinished = [&first(opcode)[..], &next].concat();
        cases.push(("a close between", unfinished, Transcript::closed(1000)));
        for (what, bytes, expected) in cases {
            for piece in [1, ALL] {
                accepts(&server, what, &bytes, piece, &expected).await;
            }
        }
    }
}

/// 5.4 and 5.5: what is out of order.
#[tokio::test]
async fn invalid_sequences_of_fragments() {
    let server = echo_server();
    let failed = || Transcript::closed(1002);
    let before = frame(FINAL | TEXT, b"before");
    let with = |frames: &[Vec<u8>]| [&before[..], &frames.concat()].concat();
    let cases = [
        ("a fragmented ping", with(&[frame(PING, b"")])),
        ("a fragmented pong", with(&[frame(PONG, b"")])),
        ("a fragmented close", with(&[frame(CLOSE, b"\x03\xe8")])),
        (
            "a ping in two fragments",
            with(&[frame(PING, b""), frame(FINAL | CONTINUATION, b"")]),
        ),
        (
            "a continuation of nothing",
            with(&[frame(FINAL | CONTINUATION, b"x")]),
        ),
        (
            "a fragment of nothing",
            with(&[frame(CONTINUATION, b"x"), frame(FINAL | TEXT, b"after")]),
        ),
        (
            "a message within a message",
            with(&[frame(TEXT, b"x"), frame(FINAL | TEXT, b"x")]),
        ),
        (
            "a fragment of another message",
            with(&[frame(BINARY, b"x"), frame(TEXT, b"x")]),
        ),
    ];
    for (what, bytes) in cases {
        for piece in [1, ALL] {
            let expected = failed().message(TEXT, "before");
            exchange(&server, what, &bytes, piece, &expected).await;
        }
    }
    let bytes = [
        frame(TEXT, b"whole"),
        frame(FINAL | CONTINUATION, b""),
        frame(FINAL | CONTINUATION, b"more"),
    ];
    let expected = failed().message(TEXT, "whole");
    exchange(
        &server,
        "a fragment too many",
        &bytes.concat(),
        ALL,
        &expected,
    )
    .await;
}

/// 5.6 and 8.1: UTF-8 (RFC 3629), the first and last characters of each length and around the surrogates,
/// and characters that Unicode calls none.
#[tokio::test]
async fn text_is_utf_8() {
    let server = echo_server();
    let valid: [&[u8]; 15] = [
        b"\0",
        b"\x7f",
        b"\xc2\x80",
        b"\xdf\xbf",
        b"\xe0\xa0\x80",
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbb\xbf",
        b"\xef\xbf\xbd",
        b"\xef\xbf\xbe",
        b"\xef\xbf\xbf",
        b"\xf0\x90\x80\x80",
        b"\xf0\x9f\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        "Hello-µ@ßöäüàá-UTF-8!! κόσμε".as_bytes(),
    ];
    for text in valid {
        let mut bytes = frame(FINAL | TEXT, text);
        let mut expected = Transcript::closed(1000).message(TEXT, text);
        // Fragments may end within a character.
        for length in 1..=text.len() {
            bytes.extend(fragments(TEXT, text, length));
            expected = expected.message(TEXT, text);
        }
        let what = format!("{text:x?}");
        for piece in [1, ALL] {
            accepts(&server, &what, &bytes, piece, &expected).await;
        }
    }
}

/// What RFC 3629 excludes.
#[tokio::test]
async fn text_that_is_not_utf_8() {
    let server = echo_server();
    let invalid: [(&str, &[&[u8]]); 6] = [
        ("a continuation alone", &[b"\x80", b"\xbf", b"\x80\xbf\x80"]),
        (
            "a character that is cut off",
            &[
                b"\xc2",
                b"\xdf ",
                b"\xe0\xa0",
                b"\xef\xbf ",
                b"\xf0\x90\x80",
                b"\xf4\x8f\xbf ",
                b"\xce\xba\xe1\xbd",
            ],
        ),
        (
            "overlong",
            &[
                b"\xc0\xaf",
                b"\xc1\xbf",
                b"\xc0\x80",
                b"\xe0\x80\xaf",
                b"\xe0\x9f\xbf",
                b"\xf0\x80\x80\xaf",
                b"\xf0\x8f\xbf\xbf",
            ],
        ),
        (
            "surrogates",
            &[
                b"\xed\xa0\x80",
                b"\xed\xad\xbf",
                b"\xed\xae\x80",
                b"\xed\xbf\xbf",
                b"\xed\xa0\x80\xed\xb0\x80",
            ],
        ),
        (
            "above U+10FFFF",
            &[
                b"\xf4\x90\x80\x80",
                b"\xf5\x80\x80\x80",
                b"\xf7\xbf\xbf\xbf",
                b"\xf8\x88\x80\x80\x80",
                b"\xfc\x84\x80\x80\x80\x80",
            ],
        ),
        ("no first byte", &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    ];
    for (kind, texts) in invalid {
        for text in texts {
            let what = format!("{kind}: {text:x?}");
            // Bytes are not checked.
            let expected = Transcript::closed(1000).message(BINARY, *text);
            accepts(&server, &what, &frame(FINAL | BINARY, text), ALL, &expected).await;
            let text = [b"valid, then ", *text].concat();
            let whole = frame(FINAL | TEXT, &text);
            for bytes in [whole, fragments(TEXT, &text, 1), fragments(TEXT, &text, 13)] {
                for piece in [1, ALL] {
                    exchange(&server, &what, &bytes, piece, &Transcript::closed(1007)).await;
                }
            }
        }
    }
}

/// 5.5.1 and 7.4: valid close frames get the same code in reply; nothing that follows them is read.
#[tokio::test]
async fn close_frames() {
    let server = echo_server();
    let after = [frame(FINAL | PING, b"after"), frame(FINAL | TEXT, b"after")].concat();
    let bytes = [frame(FINAL | CLOSE, b""), after.clone()].concat();
    exchange(&server, "no code", &bytes, ALL, &Transcript::default()).await;
    // Those that are registered for a close frame, and the ranges for libraries and applications.
    let codes = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999,
    ];
    for code in codes {
        for reason in ["", "κόσμε", &"x".repeat(123)] {
            let what = format!("the code {code} with {reason:?}");
            let bytes = [
                frame(FINAL | TEXT, b"before"),
                close(code, reason.as_bytes()),
                after.clone(),
            ];
            let expected = Transcript::closed(code).message(TEXT, "before");
            exchange(&server, &what, &bytes.concat(), ALL, &expected).await;
        }
    }
    let bytes = close(1000, "κόσμε".as_bytes());
    exchange(
        &server,
        "byte by byte",
        &bytes,
        1,
        &Transcript::closed(1000),
    )
    .await;
}

/// 5.5.1, 7.4.1, 7.4.2 and 8.1.
#[tokio::test]
async fn invalid_close_frames() {
    let server = echo_server();
    let failed = Transcript::closed(1002);
    exchange(
        &server,
        "one byte",
        &frame(FINAL | CLOSE, b"\x03"),
        ALL,
        &failed,
    )
    .await;
    let too_long = close(1000, &[b'x'; 124]);
    exchange(&server, "a reason of 124 bytes", &too_long, ALL, &failed).await;
    // Codes that are not used, not registered, or not for close frames.
    let codes = [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ];
    for code in codes {
        for reason in ["", "reason"] {
            let bytes = close(code, reason.as_bytes());
            let what = format!("the code {code} with {reason:?}");
            exchange(&server, &what, &bytes, ALL, &failed).await;
        }
    }
    for reason in [
        &b"\xff"[..],
        b"\xce\xba\xe1\xbd",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ] {
        let what = format!("the reason {reason:x?}");
        let bytes = close(1000, reason);
        exchange(&server, &what, &bytes, ALL, &Transcript::closed(1007)).await;
    }
}

/// 5.4: a sender may choose any fragments, and a message may be as long as the limit.
#[tokio::test]
async fn large_messages() {
    const MAX: usize = 16 << 20;
    let max = MAX.to_string();
    let limits = ["--max-message-bytes", &max, "--max-queued-bytes", &max];
    let args = [&limits[..], &["--message-rate", "0", "--byte-rate", "0"]].concat();
    let server = Server::bundled("echo-c", &args);
    let bytes: Vec<_> = (0..MAX).map(|i| (i / 3) as u8).collect();
    let text = vec![b'*'; 1 << 20];
    let cases = [
        ("one frame", BINARY, &bytes, MAX, ALL),
        ("fragments of 64 KiB", BINARY, &bytes, 64 << 10, ALL),
        ("fragments of 64 bytes", TEXT, &text, 64, ALL),
        ("pieces of 64 bytes", TEXT, &text, MAX, 64),
    ];
    for (what, opcode, payload, length, piece) in cases {
        let frames = match length {
            MAX => frame(FINAL | opcode, payload),
            _ => fragments(opcode, payload, length),
        };
        let expected = Transcript::closed(1000).message(opcode, payload.clone());
        accepts(&server, what, &frames, piece, &expected).await;
    }
}
