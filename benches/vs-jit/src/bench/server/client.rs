//! Clients that cost little, so that it is the server that is measured: the frames are encoded once,
//! and nothing but the length of a reply is looked at.

use super::super::measure::percentile;
use anyhow::{Context, Result, bail};
use std::{
    io::Cursor,
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{self, Runtime},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::protocol::frame::{
        Frame, FrameHeader,
        coding::{Control, Data, OpCode},
    },
};

/// The text that an echo room returns.
pub const TEXT: &str = "0123456789abcdef";

/// Send load to a local server, to profile it, and print how many messages came back
#[derive(clap::Args)]
pub struct Arguments {
    /// The port that the server printed
    port: u16,
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// A room for each connection
    #[arg(long)]
    many_rooms: bool,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl Arguments {
    pub fn run(&self) -> Result<()> {
        let mut clients =
            Clients::connect(self.port, self.connections, self.many_rooms, self.threads)?;
        let replies = clients.send(Pace {
            text: TEXT,
            time: Duration::from_secs(self.seconds),
            pause: Duration::ZERO,
        })?;
        println!("{}", replies.nanos.len());
        Ok(())
    }
}

/// What clients send, and for how long.
#[derive(Clone, Copy)]
pub struct Pace {
    pub text: &'static str,
    pub time: Duration,
    /// After each reply.
    pub pause: Duration,
}

/// The replies to all clients.
pub struct Replies {
    pub elapsed: Duration,
    /// The latency of each, sorted.
    pub nanos: Vec<u32>,
}

impl Replies {
    /// The percentile `share` (0 to 1) of the latency, in nanoseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        percentile(&self.nanos, share)
    }

    /// Time over replies, in nanoseconds.
    pub fn nanos_each(&self, time: Duration) -> f64 {
        time.as_nanos() as f64 / self.nanos.len() as f64
    }
}

/// Clients of one server, spread over threads.
pub struct Clients {
    shares: Vec<Share>,
}

/// The clients of one thread.
struct Share {
    runtime: Runtime,
    clients: Vec<Client>,
}

impl Clients {
    /// Connects clients to one room, or each to its own.
    pub fn connect(
        port: u16,
        connections: usize,
        many_rooms: bool,
        threads: usize,
    ) -> Result<Self> {
        let mut shares = Vec::new();
        for _ in 0..threads.clamp(1, connections) {
            shares.push(Share {
                runtime: runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?,
                clients: Vec::new(),
            });
        }
        // One after the other: the published server panics when very many join at once.
        for number in 0..connections {
            let room = many_rooms.then(|| number.to_string());
            let share = number % shares.len();
            let Share { runtime, clients } = &mut shares[share];
            let client = runtime.block_on(Client::connect(port, room.as_deref()));
            clients.push(client.with_context(|| format!("connection {number}"))?);
        }
        Ok(Self { shares })
    }

    /// Each client sends its next message after the reply to the last.
    pub fn send(&mut self, pace: Pace) -> Result<Replies> {
        let start = Instant::now();
        let nanos = thread::scope(|scope| {
            let threads: Vec<_> = self
                .shares
                .iter_mut()
                .map(|share| scope.spawn(|| share.send(pace, start + pace.time)))
                .collect();
            let all = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            all.collect::<Result<Vec<_>>>()
        })?;
        let elapsed = start.elapsed();
        let mut nanos = nanos.concat();
        nanos.sort_unstable();
        Ok(Replies { elapsed, nanos })
    }
}

impl Share {
    fn send(&mut self, pace: Pace, end: Instant) -> Result<Vec<u32>> {
        let frame: Arc<[u8]> = frame(pace.text)?.into();
        let pause = pace.pause;
        let clients = std::mem::take(&mut self.clients);
        self.runtime.block_on(async {
            let tasks: Vec<_> = clients
                .into_iter()
                .map(|client| tokio::spawn(client.send_until(end, frame.clone(), pause)))
                .collect();
            let mut all = Vec::new();
            for task in tasks {
                let (client, nanos) = task.await??;
                self.clients.push(client);
                all.extend(nanos);
            }
            Ok(all)
        })
    }
}

/// A connection after its handshake.
pub struct Client {
    stream: TcpStream,
    buffer: [u8; 256],
}

impl Client {
    pub async fn connect(port: u16, room: Option<&str>) -> Result<Self> {
        let room = room.map_or_else(String::new, |room| format!("/{room}"));
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async(format!("ws://127.0.0.1:{port}/ws{room}"), stream).await?;
        Ok(Self {
            // The server sends nothing before the first message, so that nothing is lost.
            stream: socket.into_inner(),
            buffer: [0; 256],
        })
    }

    /// Sends a [`frame`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(frame).await?)
    }

    /// Sends a [`frame`] and waits for the reply.
    pub async fn exchange(&mut self, frame: &[u8]) -> Result<()> {
        self.send(frame).await?;
        let mut filled = 0;
        loop {
            filled += match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => bail!("the server closed the connection, or its reply is too long"),
                read => read,
            };
            let mut received = Cursor::new(&self.buffer[..filled]);
            let Some((header, length)) = FrameHeader::parse(&mut received)? else {
                continue;
            };
            let length = header.len(length) + usize::try_from(length)?;
            if filled < length {
                continue;
            }
            match header.opcode {
                OpCode::Data(Data::Text) if filled == length => return Ok(()),
                // A ping, which needs no reply within the time of a measurement.
                OpCode::Control(Control::Ping) => {
                    self.buffer.copy_within(length..filled, 0);
                    filled -= length;
                }
                opcode => bail!(
                    "the server sent an unexpected frame: {opcode:?}, {:?}",
                    String::from_utf8_lossy(&self.buffer[..filled])
                ),
            }
        }
    }

    /// Sends each message after the reply to the last; returns the latencies.
    async fn send_until(
        mut self,
        end: Instant,
        frame: Arc<[u8]>,
        pause: Duration,
    ) -> Result<(Self, Vec<u32>)> {
        let mut nanos = Vec::new();
        let mut now = Instant::now();
        while now < end {
            let sent = now;
            self.exchange(&frame).await?;
            now = Instant::now();
            nanos.push(u32::try_from((now - sent).as_nanos()).unwrap_or(u32::MAX));
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
                now = Instant::now();
            }
        }
        Ok((self, nanos))
    }
}

/// A message of a client, encoded.
pub fn frame(text: &str) -> Result<Vec<u8>> {
    let mut frame = Frame::message(text.to_owned(), OpCode::Data(Data::Text), true);
    frame.header_mut().mask = Some([1, 2, 3, 4]);
    let mut bytes = Vec::new();
    frame.format(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use tokio::net::TcpListener;
    use tokio_tungstenite::{accept_async, tungstenite::Message};

    /// The result of an exchange with a server that sends these messages in reply.
    async fn exchange(replies: Vec<Message>) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await?;
            let mut socket = accept_async(stream).await?;
            let request = socket.next().await.context("no message")??;
            for reply in replies {
                socket.send(reply).await?;
            }
            anyhow::Ok((request, socket))
        });
        let mut client = Client::connect(port, None).await?;
        let result = client.exchange(&frame(TEXT)?).await;
        assert_eq!(server.await??.0, Message::text(TEXT));
        result
    }

    #[tokio::test]
    async fn a_reply_is_a_whole_text() -> Result<()> {
        exchange(vec![Message::text(TEXT)]).await?;
        exchange(vec![Message::text("x".repeat(200))]).await?;
        exchange(vec![Message::Ping("?".into()), Message::text(TEXT)]).await?;
        // What is not the one reply would be counted as the next.
        assert!(exchange(vec![Message::binary("?")]).await.is_err());
        assert!(exchange(vec![Message::Close(None)]).await.is_err());
        assert!(
            exchange(vec![Message::text("x".repeat(300))])
                .await
                .is_err()
        );
        Ok(())
    }
}
