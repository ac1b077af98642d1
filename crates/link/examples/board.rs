//! Rooms behind a line, without a board: `cargo run -p stateroom-wasmi-link --features embedded-io --example board` runs
//! them at the other end of a socket, and, in another terminal,
//! `stateroom-wasmi attach 127.0.0.1:5555` serves them to browsers.
//!
//! A firmware looks the same, with its UART for the socket, its timer for the clock, and its sleep
//! until an interrupt for the one here.

use embedded_io_adapters::std::FromStd;
use stateroom_wasmi_host::{Budget, Clock, Host, Limits, Module, SystemClock};
use stateroom_wasmi_link::{Link, LinkTransport, NonBlocking, WireError, buffer_bytes};
use std::{
    error::Error,
    io,
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// For the messages of `Limits::small()`.
const BUFFER: usize = buffer_bytes(Limits::small().max_message_bytes);

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5555".to_owned());
    let listener = TcpListener::bind(&address)?;
    println!("rooms at {address}");
    loop {
        let (stream, from) = listener.accept()?;
        println!("{from} is at the other end");
        match run(stream) {
            Ok(()) | Err(WireError::Ended) => println!("{from} is gone"),
            Err(error) => println!("{from} is gone: {error}"),
        }
    }
}

fn run(stream: TcpStream) -> Result<(), WireError<io::Error>> {
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_nonblocking(true))
        .map_err(WireError::Read)?;
    let is_not_ready = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let mut link = Link::<_, BUFFER>::new(NonBlocking {
        io: FromStd::new(stream),
        is_not_ready,
    });
    let mut host = Host::new(SystemClock::new(), LinkTransport::<BUFFER>::new());

    let rooms: [(&str, &[u8]); 2] = [
        (
            "counter",
            include_bytes!("../../../examples/rooms/wasm/counter-c.wasm"),
        ),
        (
            "echo",
            include_bytes!("../../../examples/rooms/wasm/echo-c.wasm"),
        ),
    ];
    for (id, wasm) in rooms {
        let module = Module::load(wasm, &Limits::small()).expect("the example's rooms fit the ABI");
        let room = host
            .open(id, &module)
            .expect("the rooms have ids of their own");
        link.carry(&mut host, room).expect("there are two");
    }

    loop {
        let wake_at = link.poll(&mut host, Budget::fuel(100_000))?;
        while let Some(closed) = link.poll_closed(&mut host) {
            println!("room {:?} has ended: {:?}", closed.id, closed.fault);
        }
        // Nothing wakes this thread when something comes in, so it looks every millisecond.
        let now = host.clock().now();
        let until_then = wake_at.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        thread::sleep(until_then.min(Duration::from_millis(1)));
    }
}
