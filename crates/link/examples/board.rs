//! A board as a program on the desktop, behind a TCP socket. In two terminals:
//!
//! ```sh
//! cargo run -p stateroom-wasmi-link --features embedded-io --example board
//! cargo run -p stateroom-wasmi -- attach 127.0.0.1:5555
//! ```
//!
//! Firmware looks the same, with a UART instead of the socket, a timer instead of the system's
//! clock, and sleep until an interrupt.

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

const BUFFER: usize = buffer_bytes(Limits::small().max_message_bytes);

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:5555".to_owned());
    let listener = TcpListener::bind(&address)?;
    println!("rooms at {address}");
    loop {
        let (stream, from) = listener.accept()?;
        println!("{from} connected");
        match run(stream) {
            Ok(()) | Err(WireError::Closed) => println!("{from} disconnected"),
            Err(error) => println!("{from}: {error}"),
        }
    }
}

fn run(stream: TcpStream) -> Result<(), WireError<io::Error>> {
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_nonblocking(true))
        .map_err(WireError::Read)?;
    let would_block = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let mut link = Link::<_, BUFFER>::new(NonBlocking {
        io: FromStd::new(stream),
        would_block,
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
        let module = Module::load(wasm, &Limits::small()).expect("the example's modules are valid");
        let room = host.open(id, &module).expect("the ids are unique");
        link.add_room(&mut host, room).expect("two rooms fit");
    }

    loop {
        let wake_at = link.poll(&mut host, Budget::fuel(100_000))?;
        while let Some(closed) = link.poll_closed(&mut host) {
            println!("room {:?} closed: {:?}", closed.id, closed.fault);
        }
        // Nothing wakes this thread when bytes arrive, so it polls every millisecond.
        let now = host.clock().now();
        let wait = wake_at.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        thread::sleep(wait.min(Duration::from_millis(1)));
    }
}
