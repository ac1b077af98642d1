//! Clients that speak to echoes.

use core::net::SocketAddr;
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// A client of a room.
pub struct Speaker(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// A message, and its reply.
pub struct Exchange {
    sent: Instant,
    replied: Instant,
}

impl Exchange {
    pub fn took(&self) -> Duration {
        self.replied - self.sent
    }
}

impl Speaker {
    pub async fn connect(address: SocketAddr, room: &str) -> Self {
        let connected = connect_async(format!("ws://{address}/ws/{room}")).await;
        Self(connected.expect("it is let in").0)
    }

    /// Says something, and waits for the reply; fails with why the connection has ended.
    pub async fn exchange(&mut self) -> Result<Exchange, String> {
        let sent = Instant::now();
        let message = Message::binary(vec![7; 200]);
        let sending = self.0.send(message).await;
        sending.map_err(|error| error.to_string())?;
        self.reply().await?;
        let replied = Instant::now();
        Ok(Exchange { sent, replied })
    }

    async fn reply(&mut self) -> Result<(), String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(_))) => return Ok(()),
                Some(Ok(Message::Close(frame))) => return Err(format!("{frame:?}")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the end".into()),
            }
        }
    }
}

/// Clients of several rooms, which speak all the time.
pub struct Speakers {
    tasks: JoinSet<Vec<Exchange>>,
    /// Until this is dropped.
    speaking: watch::Sender<()>,
}

/// How long they speak at least, before it is asked how long they have waited and after that.
const TIME: Duration = Duration::from_secs(1);
/// How long they pause.
const PAUSE: Duration = Duration::from_millis(10);

impl Speakers {
    /// One of each; returns when each has had replies.
    pub async fn start(address: SocketAddr, rooms: Vec<String>) -> Self {
        let mut connecting = JoinSet::new();
        for room in rooms {
            connecting.spawn(async move {
                let mut speaker = Speaker::connect(address, &room).await;
                speaker.exchange().await.expect("it replies");
                speaker
            });
        }
        let mut tasks = JoinSet::new();
        let (speaking, _) = watch::channel(());
        for mut speaker in connecting.join_all().await {
            let is_speaking = speaking.subscribe();
            tasks.spawn(async move {
                let mut exchanges = Vec::new();
                while is_speaking.has_changed().is_ok() {
                    exchanges.push(speaker.exchange().await.expect("its connection stays"));
                    sleep(PAUSE).await;
                }
                exchanges
            });
        }
        sleep(TIME).await;
        Self { tasks, speaking }
    }

    /// For each room, the longest that somebody has waited for a reply, from this time on.
    pub async fn waits_since(self, time: Instant) -> Vec<Duration> {
        sleep(TIME).await;
        drop(self.speaking);
        let speakers = self.tasks.join_all().await.into_iter();
        let waits = speakers.map(|exchanges| {
            let later = exchanges.iter().filter(|it| it.replied > time);
            let longest = later
                .max_by_key(|it| it.took())
                .expect("it has had replies");
            longest.replied - longest.sent.max(time)
        });
        waits.collect()
    }
}

/// Sends as much as a room takes, for some time; returns how much that was.
pub async fn flood(address: SocketAddr, room: String, time: Duration) -> usize {
    const WINDOW: usize = 16;
    let mut speaker = Speaker::connect(address, &room).await;
    let until = Instant::now() + time;
    let mut replies = 0;
    while Instant::now() < until {
        for _ in 0..WINDOW {
            let sent = speaker.0.feed(Message::binary(vec![7; 200]));
            sent.await.expect("its connection stays");
        }
        speaker.0.flush().await.expect("its connection stays");
        for _ in 0..WINDOW {
            let reply = timeout(Duration::from_secs(30), speaker.reply()).await;
            reply.expect("it replies").expect("its connection stays");
            replies += 1;
        }
    }
    replies
}
