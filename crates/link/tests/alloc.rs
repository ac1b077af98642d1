//! Once warm, a link allocates nothing for frames in either direction.
//!
//! A test target of its own, since it replaces the allocator.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../../../tests/support/counting_allocator.rs"]
mod counting_allocator;

use counting_allocator::ALLOCATIONS;
use stateroom_wasmi_host::{Budget, Host, Limits, ManualClock, Module};
use stateroom_wasmi_link::{Link, LinkTransport, Wire};
use std::{convert::Infallible, time::Duration};

const ECHO: &[u8] = include_bytes!("../../../examples/rooms/wasm/echo-c.wasm");

const BUFFER: usize = 2048;

/// Plays back bytes to the link, and discards what it writes.
struct Script {
    input: std::rc::Rc<[u8]>,
    read: usize,
    written: usize,
}

impl Wire for Script {
    type Error = Infallible;

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let unread = &self.input[self.read..];
        let len = bytes.len().min(unread.len());
        bytes[..len].copy_from_slice(&unread[..len]);
        self.read += len;
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.written += bytes.len();
        Ok(bytes.len())
    }
}

fn encode(kind: u8, sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = [&[kind, sequence], body].concat();
    frame.extend(
        crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC)
            .checksum(&frame)
            .to_le_bytes(),
    );
    [&[0], cobs::encode_vec(&frame).as_slice(), &[0]].concat()
}

/// A hello; and, after its confirmation, a client that connects, sends two messages and disconnects.
fn session(session: u8) -> [std::rc::Rc<[u8]>; 2] {
    let to = |rest: &[u8]| [&[0, 1, 0, 0, 0], rest].concat();
    let hello = encode(0x01, 0, &[1, session, 0, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0]);
    let events = [
        encode(0x10, 0, &to(&[])),
        encode(0x12, 1, &to(b"some text of a client")),
        encode(0x13, 2, &to(&[0xff; 500])),
        vec![0x55; 30],
        encode(0x11, 3, &to(&[])),
    ];
    [hello.into(), events.concat().into()]
}

#[test]
fn a_warm_link_allocates_nothing() {
    let mut host = Host::new(ManualClock::new(), LinkTransport::<BUFFER>::new());
    let script = [session(1), session(2)].concat();
    let mut link = Link::<_, BUFFER>::new(Script {
        input: script[0].clone(),
        read: 0,
        written: 0,
    });
    let room = host
        .open(
            "",
            &Module::load(ECHO, &Limits::default()).expect("it loads"),
        )
        .expect("it opens");
    link.add_room(&mut host, room)
        .expect("the link has capacity");
    let mut round = || {
        for input in &script {
            link.wire_mut().input = input.clone();
            link.wire_mut().read = 0;
            // Long enough for retransmissions.
            for _ in 0..10 {
                let Ok(_) = link.poll(&mut host, Budget::UNLIMITED);
                host.clock().advance(Duration::from_millis(500));
            }
        }
        std::mem::take(&mut link.wire_mut().written)
    };
    for _ in 0..50 {
        round();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        let written = round();
        assert!(written > 4 * 500, "{written} bytes");
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
