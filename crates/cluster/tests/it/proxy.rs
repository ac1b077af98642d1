//! A network between a node and NATS that can be cut.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// Passes bytes on, unless it is cut: then it keeps them, and the ends of connections, until it is not.
pub(crate) struct Proxy {
    pub(crate) url: String,
    is_cut: Arc<(Mutex<bool>, Condvar)>,
}

impl Proxy {
    pub(crate) fn to(url: &str) -> Self {
        let target = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("nats://{}", listener.local_addr().expect("it is bound"));
        let is_cut = Arc::<(Mutex<bool>, Condvar)>::default();
        let state = is_cut.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                        continue;
                    };
                    let state = state.clone();
                    thread::spawn(move || pass_on(from, to, &state));
                }
            }
        });
        Self { url, is_cut }
    }

    pub(crate) fn set_cut(&self, is_cut: bool) {
        *self.is_cut.0.lock().expect("no panic") = is_cut;
        self.is_cut.1.notify_all();
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, state: &(Mutex<bool>, Condvar)) {
    let mut buffer = [0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let is_cut = state.0.lock().expect("no panic");
        drop(state.1.wait_while(is_cut, |is_cut| *is_cut));
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
