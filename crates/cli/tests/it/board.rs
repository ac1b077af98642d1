//! A board, simulated by a thread.

use super::eventually;
use crate::support::{ENV, echo, guest_0_2, limits, module_with};
use stateroom_wasmi_host::{Budget, Host, Limits, SystemClock};
use stateroom_wasmi_link::{Link, LinkTransport, Wire, buffer_bytes};
use std::{
    io::{self, Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const BUFFER: usize = buffer_bytes(1024);

/// The board's rooms.
fn rooms() -> Vec<(&'static str, String)> {
    let to =
        |recipient: &str| format!("(call $send_message {recipient} (local.get 1) (local.get 2))");
    let chat = guest_0_2(ENV, &[("message", &to("(i32.const 0)"))], "");
    let fragile = guest_0_2(ENV, &[("message", "(unreachable)")], "");
    vec![("echo", echo()), ("chat", chat), ("fragile", fragile)]
}

/// A wire over a nonblocking stream.
struct Stream<S>(S);

impl<S: Read + Write> Wire for Stream<S> {
    type Error = io::Error;

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.0.read(bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

/// How a test controls its board.
#[derive(Default)]
pub struct Switches {
    /// Restarts the board, on the same stream.
    pub restart: AtomicBool,
    /// Closes the stream.
    pub cut: AtomicBool,
    /// Ends the thread.
    quit: AtomicBool,
    /// Clients in all rooms.
    pub clients: AtomicUsize,
}

/// A board that runs until this is dropped.
pub struct Board(pub Arc<Switches>);

impl Board {
    pub async fn until_clients(&self, count: usize) {
        eventually("the board has its clients", async {
            while self.0.clients.load(Ordering::Relaxed) != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.0.quit.store(true, Ordering::Relaxed);
    }
}

/// Runs a board on each stream that is opened, one after the other.
pub fn run_board<S: Read + Write>(open: impl Fn() -> Option<S> + Send + 'static) -> Board {
    let switches = Arc::new(Switches::default());
    let shared = switches.clone();
    thread::spawn(move || {
        while !shared.quit.load(Ordering::Relaxed) {
            match open() {
                Some(stream) => run_stream(stream, &shared),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    });
    Board(switches)
}

fn run_stream<S: Read + Write>(stream: S, switches: &Switches) {
    let mut stream = Stream(stream);
    while !switches.cut.swap(false, Ordering::Relaxed) && !switches.quit.load(Ordering::Relaxed) {
        switches.restart.store(false, Ordering::Relaxed);
        if run_firmware(&mut stream, switches).is_err() {
            return;
        }
    }
}

/// The firmware, from its start to its reset.
fn run_firmware<S: Read + Write>(stream: &mut Stream<S>, switches: &Switches) -> io::Result<()> {
    let small = limits(|limits| {
        *limits = Limits::small();
        limits.max_clients = 3;
        limits.max_message_bytes = 1000;
    });
    let mut host = Host::new(SystemClock::new(), LinkTransport::<BUFFER>::new());
    let mut link = Link::<_, BUFFER>::new(stream);
    for (id, text) in rooms() {
        let room = host
            .open(id, &module_with(&text, &small))
            .expect("the room opens");
        link.add_room(&mut host, room)
            .expect("the link has capacity");
    }
    loop {
        for switch in [&switches.restart, &switches.cut, &switches.quit] {
            if switch.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        let polled = link.poll(&mut host, Budget::fuel(100_000));
        while link.poll_closed(&mut host).is_some() {}
        let clients = host.rooms().map(|(_, room)| room.clients().len()).sum();
        switches.clients.store(clients, Ordering::Relaxed);
        polled?;
        thread::sleep(Duration::from_millis(1));
    }
}

/// A board behind a TCP socket, and its address.
pub fn tcp_board() -> (Board, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens").to_string();
    listener
        .set_nonblocking(true)
        .expect("cannot make it nonblocking");
    let open = move || {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    };
    (run_board(open), address)
}
