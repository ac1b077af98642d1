//! Rooms that survive the process. A crash is a copy of what is durable in the journal: from it, another
//! server goes on.

use crate::support::{assemble, speaker};
use core::{future::Future, time::Duration};
use futures_util::{FutureExt, SinkExt, StreamExt};
use stateroom_wasmi_host::{FaultPolicy, Limits};
use stateroom_wasmi_server::{
    Server, ServerConfig, ServerControl,
    journal::{Durability, Journal, LogEntries, MemoryJournal, ModuleUpgrade},
};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// The upper bound on every wait.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) async fn eventually<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(TIMEOUT, future).await;
    done.unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// A guest that counts messages, and says how many there were; that says who connects and who leaves
/// (1,000 and 2,000 and their ids); and whose timer, which bytes set to 1 ms, says 3,000 and how often it
/// fired.
fn counter() -> Vec<u8> {
    let count =
        "(global.set $n (i32.add (global.get $n) (i32.const 1))) (call $say (global.get $n))";
    let fire = "(global.set $fired (i32.add (global.get $fired) (i32.const 1)))
        (call $say (i32.add (i32.const 3000) (global.get $fired)))";
    let connect = "(call $say (i32.add (i32.const 1000) (local.get 0)))";
    let disconnect = "(call $say (i32.add (i32.const 2000) (local.get 0)))";
    assemble(&speaker(
        &[
            ("connect", connect),
            ("disconnect", disconnect),
            ("message", count),
            ("binary", "(call $set_timer (i32.const 1))"),
            ("timer", fire),
        ],
        "(global $n (mut i32) (i32.const 0)) (global $fired (mut i32) (i32.const 0))",
    ))
}

pub(crate) struct RunningServer {
    pub(crate) address: String,
    control: ServerControl,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<io::Result<()>>,
}

impl RunningServer {
    pub(crate) async fn start(
        journal: &MemoryJournal,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let journal: Arc<dyn Journal> = Arc::new(journal.clone());
        Self::without_journal(|config| {
            config.journal = Some(journal);
            change(config);
        })
        .await
    }

    pub(crate) async fn without_journal(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::new(counter()).port(0).workers(1);
        change(&mut config);
        let server = Server::bind(config).await.expect("it starts");
        let address = server.local_addrs()[0].to_string();
        let control = server.control();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            control,
            stop: Some(stop),
            ended,
        }
    }

    pub(crate) async fn join(&self, path: &str) -> Client {
        let url = format!("ws://{}/ws/{path}", self.address);
        let (socket, _) = eventually("the handshake", connect_async(url))
            .await
            .expect("the handshake succeeds");
        Client(socket)
    }

    /// Sends a request of an operator; returns the response.
    pub(crate) async fn post(&self, path: &str) -> String {
        self.request("POST", path).await
    }

    /// Waits until the only room hibernates.
    pub(crate) async fn until_it_hibernates(&self) {
        eventually("it hibernates", async {
            let list = || self.request("GET", "/rooms");
            while !list().await.contains("\"state\":\"hibernating\"") {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn request(&self, method: &str, path: &str) -> String {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        let response = async {
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut response = String::new();
            stream.read_to_string(&mut response).await?;
            io::Result::Ok(response)
        };
        let response = eventually("a response", response).await;
        response.expect("a response")
    }

    pub(crate) async fn stop(mut self) -> io::Result<()> {
        drop(self.stop.take());
        eventually("the end", self.ended).await.expect("no panic")
    }
}

pub(crate) struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn say(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).await.expect("it is connected");
    }

    /// The next number that the room says.
    pub(crate) async fn hear(&mut self) -> i32 {
        match eventually("a message", self.0.next()).await {
            Some(Ok(Message::Binary(bytes))) => {
                i32::from_le_bytes(bytes[..].try_into().expect("four bytes"))
            }
            other => panic!("no number: {other:?}"),
        }
    }

    /// The close code and reason.
    async fn closed(mut self) -> (u16, String) {
        loop {
            match eventually("a close", self.0.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }

    /// Whether nothing comes for a while.
    async fn hears_nothing(&mut self) -> bool {
        timeout(Duration::from_millis(100), self.0.next())
            .await
            .is_err()
    }
}

/// How many events of a room the journal has since its snapshot, and how many are in that.
fn events(journal: &MemoryJournal, room: &str) -> Option<(usize, u64)> {
    let stored = journal.stored(room)?;
    let tail = LogEntries::new(&stored.tail).count();
    Some((tail, stored.snapshot.events))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_goes_on_after_a_crash() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    let mut ann = server.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 1001);
    let mut bob = server.join("lobby").await;
    assert_eq!(ann.hear().await, 1002);
    assert_eq!(bob.hear().await, 1002);
    for n in 1..=5 {
        ann.say("text").await;
        assert_eq!(ann.hear().await, n);
    }
    // The start, two connects, five messages.
    assert_eq!(events(&journal, "lobby"), Some((8, 0)));

    let crashed = journal.fork();
    let again = RunningServer::start(&crashed, |_| {}).await;
    // Both have gone with the process; who has a token comes back as the same.
    let mut ann = again.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 1001);
    ann.say("text").await;
    assert_eq!(ann.hear().await, 6);
    let mut other = again.join("lobby?token=other").await;
    assert_eq!(other.hear().await, 1003, "an id is not used again");

    // And once more, with what the second one has done.
    let third = RunningServer::start(&crashed.fork(), |_| {}).await;
    let mut other = third.join("lobby?token=other").await;
    assert_eq!(other.hear().await, 1003);
    other.say("text").await;
    assert_eq!(other.hear().await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_told_of_clients_that_went_with_the_process() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    let mut ann = server.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 1001);
    let _bob = server.join("lobby?token=bob").await;
    assert_eq!(ann.hear().await, 1002);

    let crashed = journal.fork();
    let again = RunningServer::start(&crashed, |_| {}).await;
    // Without anybody asking for the room: it has events since its snapshot.
    eventually("the disconnects", async {
        while events(&crashed, "lobby").is_none_or(|(tail, _)| tail < 5) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut ann = again.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 1001);
    drop(ann);
    again.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_wait_until_their_events_are_durable() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.durability_of = vec![
            ("memory-".into(), Durability::Memory),
            ("relaxed-".into(), Durability::Relaxed),
        ];
    })
    .await;
    let mut durable = server.join("lobby").await;
    assert_eq!(durable.hear().await, 1001);
    let mut relaxed = server.join("relaxed-lobby").await;
    assert_eq!(relaxed.hear().await, 1001);
    let mut memory = server.join("memory-lobby").await;
    assert_eq!(memory.hear().await, 1001);

    journal.pause();
    for n in 1..=3 {
        durable.say("text").await;
        relaxed.say("text").await;
        assert_eq!(relaxed.hear().await, n);
        memory.say("text").await;
        assert_eq!(memory.hear().await, n);
    }
    assert!(durable.hears_nothing().await);
    assert_eq!(events(&journal, "memory-lobby"), None);
    // A crash now, and nothing that the client has seen is lost.
    let again = RunningServer::start(&journal.fork(), |_| {}).await;
    let mut other = again.join("lobby").await;
    assert_eq!(other.hear().await, 1002);
    other.say("text").await;
    assert_eq!(other.hear().await, 1);

    journal.resume();
    for n in 1..=3 {
        assert_eq!(durable.hear().await, n);
    }
    drop((durable, relaxed, memory));
    server.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_journal_is_backpressure_and_disconnects_nobody() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.max_queued_messages = 64;
        config.limits = Limits::new().max_outbox_messages(16);
        config.message_rate = stateroom_wasmi_server::Rate::new(0, 0);
    })
    .await;
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1001);
    journal.pause();
    let (mut sink, mut stream) = client.0.split();
    let said = tokio::spawn(async move {
        for _ in 0..5000 {
            sink.send(Message::text("text")).await.expect("connected");
        }
        sink
    });
    eventually("a batch", async {
        while journal.waiting() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    sleep(Duration::from_millis(200)).await;
    assert!(stream.next().now_or_never().is_none());
    let waiting = journal.waiting();
    assert!(waiting < 5000, "what waits is bounded");
    journal.resume();
    for n in 1..=5000 {
        match eventually("a message", stream.next()).await {
            Some(Ok(Message::Binary(bytes))) => {
                assert_eq!(bytes[..], i32::to_le_bytes(n));
            }
            other => panic!("no number: {other:?}"),
        }
    }
    let _sink = said.await.expect("all was said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_saves_and_another_server_goes_on() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    let mut ann = server.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 1001);
    ann.say("text").await;
    assert_eq!(ann.hear().await, 1);
    let (stopped, closed) = tokio::join!(server.stop(), ann.closed());
    stopped.expect("it stops");
    assert_eq!(closed.0, 1001);
    assert_eq!(events(&journal, "lobby"), Some((0, 3)));
    assert_eq!(journal.unfinished(), []);

    let again = RunningServer::start(&journal, |_| {}).await;
    let mut ann = again.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 1001);
    ann.say("text").await;
    assert_eq!(ann.hear().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_somebody_asks_for_is_restored_once() {
    /// No more are restored at once without being asked for.
    const AT_ONCE: usize = 96;
    const ROOMS: usize = AT_ONCE + 4;
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    let mut clients = Vec::new();
    for room in 0..ROOMS {
        let mut client = server.join(&format!("room-{room:02}")).await;
        assert_eq!(client.hear().await, 1001);
        clients.push(client);
    }
    let crashed = journal.fork();
    crashed.pause();
    let again = RunningServer::start(&crashed, |_| {}).await;
    let until_waiting = async |jobs| {
        let waiting = async {
            while crashed.waiting() < jobs {
                sleep(Duration::from_millis(5)).await;
            }
        };
        eventually("the journal has something to do", waiting).await;
    };
    until_waiting(AT_ONCE).await;
    // Of the last one, which is loaded out of turn.
    let mut client = again.join(&format!("room-{:02}", ROOMS - 1)).await;
    until_waiting(AT_ONCE + 1).await;
    // One after the other is restored, and the next begun, until it is the turn of the last one.
    for step in 0..6 {
        let before = crashed.waiting();
        assert!(crashed.step());
        // The client of each has left, and from the second on another room is loaded.
        until_waiting(before + usize::from((1..4).contains(&step))).await;
    }
    crashed.resume();
    assert_eq!(client.hear().await, 1002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_room_that_nobody_asks_for_hibernates_until_somebody_does() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    let mut ann = server.join("lobby").await;
    assert_eq!(ann.hear().await, 1001);
    ann.say("text").await;
    assert_eq!(ann.hear().await, 1);
    // With a client that is to leave when the room is restored, and without one.
    let with_client = journal.fork();
    drop(ann);
    let until_durable = async |journal: &MemoryJournal, count| {
        eventually("all is durable", async {
            while events(journal, "lobby") != Some((count, 0)) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    // The start, a connect, a message and a disconnect.
    until_durable(&journal, 4).await;
    for journal in [journal.fork(), with_client] {
        let again = RunningServer::start(&journal, |_| {}).await;
        until_durable(&journal, 4).await;
        again.until_it_hibernates().await;
        let mut bob = again.join("lobby").await;
        assert_eq!(bob.hear().await, 1002);
        let list = again.request("GET", "/rooms").await;
        assert!(list.contains("\"state\":\"open\""), "{list}");
        bob.say("text").await;
        assert_eq!(bob.hear().await, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_are_to_be_open_are() {
    let journal = MemoryJournal::new();
    let open = |config: &mut ServerConfig| {
        config.open_rooms = vec!["lobby".into(), "memory-lobby".into(), "lobby".into()];
        config.durability_of = vec![("memory-".into(), Durability::Memory)];
        config.room_idle = Duration::ZERO;
    };
    let server = RunningServer::start(&journal, open).await;
    eventually("the room is open", async {
        while events(&journal, "lobby").is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for round in 0..2 {
        for room in ["lobby", "memory-lobby"] {
            let mut client = server.join(room).await;
            assert_eq!(client.hear().await, 1001 + round, "{room}");
            client.say("text").await;
            assert_eq!(client.hear().await, 1 + round);
        }
    }
    server.stop().await.expect("it stops");
    // Also of those that are stored.
    let again = RunningServer::start(&journal, open).await;
    let mut client = again.join("lobby").await;
    assert_eq!(client.hear().await, 1003);

    let wrong = [
        vec!["x".repeat(Limits::new().max_room_id_bytes + 1)],
        vec!["a".into(), "b".into()],
    ];
    for open_rooms in wrong {
        let config = ServerConfig::new(counter()).max_rooms(1);
        assert!(config.clone().open_rooms(["a"]).check().is_ok());
        let error = config.open_rooms(open_rooms).check().expect_err("refused");
        assert!(error.to_string().contains("be opened"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_without_clients_is_stored_and_comes_back() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.room_idle = Duration::from_millis(1);
    })
    .await;
    for round in 0..3 {
        let mut client = server.join("lobby").await;
        assert_eq!(client.hear().await, 1001 + round);
        client.say("text").await;
        assert_eq!(client.hear().await, 1 + round);
        drop(client);
        // The start, and for each client a connect, a message and a disconnect.
        let stored = Some((0, 1 + 3 * (round as u64 + 1)));
        eventually("the room is stored", async {
            while events(&journal, "lobby") != stored {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_that_came_due_meanwhile_fires_once() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| config.keep_timers = true).await;
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1001);
    // The timer's event is not durable, and neither is that it was set.
    journal.pause();
    client.say(vec![1]).await;
    eventually("the timer", async {
        while journal.waiting() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // A crash after it was set and before it fired.
    assert!(journal.step());
    let crashed = journal.fork();
    assert_eq!(events(&crashed, "lobby"), Some((3, 0)));
    sleep(Duration::from_millis(5)).await;
    let again = RunningServer::start(&crashed, |config| config.keep_timers = true).await;
    let mut other = again.join("lobby").await;
    loop {
        let heard = other.hear().await;
        if heard == 1002 {
            break;
        }
        assert_eq!(heard, 3001);
    }
    other.say(vec![1]).await;
    // It had fired once, before or after the client came.
    loop {
        let heard = other.hear().await;
        if heard == 3002 {
            break;
        }
        assert_eq!(heard, 3001);
    }
    journal.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_with_a_timer_wakes_by_itself() {
    let journal = MemoryJournal::new();
    let with_timer = || {
        assemble(&speaker(
            &[
                ("connect", "(call $set_timer (i32.const 100))"),
                (
                    "timer",
                    "(call $say (i32.const 1)) (call $set_timer (i32.const 100))",
                ),
            ],
            "",
        ))
    };
    let change = |config: &mut ServerConfig| {
        config.module = with_timer();
        config.keep_timers = true;
    };
    let server = RunningServer::start(&journal, change).await;
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1);
    let (stopped, _) = tokio::join!(server.stop(), client.closed());
    stopped.expect("it stops");
    let (_, before) = events(&journal, "lobby").expect("it is stored");
    assert!(journal.unfinished()[0].wake_at.is_some());
    let _again = RunningServer::start(&journal, change).await;
    eventually("the timer fires", async {
        while events(&journal, "lobby").is_none_or(|(tail, saved)| tail as u64 + saved < before + 3)
        {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_has_failed_is_removed() {
    let fragile = || {
        let fail = "(unreachable)";
        let connect = "(call $say (i32.add (i32.const 1000) (local.get 0)))";
        assemble(&speaker(&[("connect", connect), ("message", fail)], ""))
    };
    for policy in [FaultPolicy::Close, FaultPolicy::Rollback] {
        let journal = MemoryJournal::new();
        let change = |config: &mut ServerConfig| {
            config.module = fragile();
            config.on_fault = policy;
        };
        let server = RunningServer::start(&journal, change).await;
        let mut client = server.join("lobby").await;
        assert_eq!(client.hear().await, 1001);
        client.say("text").await;
        if policy == FaultPolicy::Close {
            assert_eq!(client.closed().await.0, 1011);
            assert_eq!(events(&journal, "lobby"), None);
        } else {
            // It goes on, also elsewhere.
            let mut other = server.join("lobby").await;
            assert_eq!(other.hear().await, 1002);
            let again = RunningServer::start(&journal.fork(), change).await;
            let mut other = again.join("lobby").await;
            assert_eq!(other.hear().await, 1003);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_another_module_is_refused_or_begins_anew() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    let mut ann = server.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 1001);
    let before = journal.fork();
    let other = || {
        let connect = "(call $say (i32.add (i32.const 9000) (local.get 0)))";
        assemble(&speaker(&[("connect", connect)], ""))
    };

    let refusing = RunningServer::start(&before, |config| config.module = other()).await;
    let client = refusing.join("lobby").await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1011);
    assert!(reason.contains("another module"), "{reason}");
    // Another room is served, and the stored one is as it was.
    let mut client = refusing.join("hall").await;
    assert_eq!(client.hear().await, 9001);
    drop(client);
    refusing.stop().await.expect("it stops");
    assert_eq!(before.stored("lobby"), journal.stored("lobby"));

    let change = |config: &mut ServerConfig| {
        config.module = other();
        config.upgrade = ModuleUpgrade::Restart;
    };
    let restarting = RunningServer::start(&before, change).await;
    let mut ann = restarting.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 9001);
    let again = RunningServer::start(&before.fork(), change).await;
    let mut ann = again.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 9001);
}

/// [`counter`], with exports by which the count of messages passes to another module. If `is_next`, its
/// messages count a hundredfold. `load` is the body of the export that takes the count.
fn keeper(is_next: bool, load: &str) -> Vec<u8> {
    let step = if is_next { 100 } else { 1 };
    let count = format!(
        "(global.set $n (i32.add (global.get $n) (i32.const {step}))) (call $say (global.get $n))"
    );
    assemble(&speaker(
        &[
            (
                "connect",
                "(call $say (i32.add (i32.const 1000) (local.get 0)))",
            ),
            ("message", &count),
        ],
        &format!(
            "(global $n (mut i32) (i32.const 0))
             (func (export \"stateroom_save\") (result i64)
               (i32.store (i32.const 64) (global.get $n)) (i64.const 0x4000000004))
             (func (export \"stateroom_load\") (param i32 i32) {load})"
        ),
    ))
}

const LOAD_COUNT: &str = "(global.set $n (i32.load (local.get 0)))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_room_passes_its_state_to_another_module() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.module = keeper(false, LOAD_COUNT);
    })
    .await;
    let mut ann = server.join("lobby?token=ann").await;
    assert_eq!(ann.hear().await, 1001);
    for n in 1..=3 {
        ann.say("text").await;
        assert_eq!(ann.hear().await, n);
    }
    // Once as it was saved, and once with events since.
    let crashed = journal.fork();
    server.stop().await.expect("it stops");
    for (journal, what) in [(journal, "saved"), (crashed, "crashed")] {
        for policy in [ModuleUpgrade::Hook, ModuleUpgrade::HookOrRestart] {
            let journal = journal.fork();
            let server = RunningServer::start(&journal, |config| {
                config.module = keeper(true, LOAD_COUNT);
                config.upgrade = policy;
            })
            .await;
            let mut ann = server.join("lobby?token=ann").await;
            assert_eq!(ann.hear().await, 1001, "{what}");
            ann.say("text").await;
            assert_eq!(ann.hear().await, 103, "{what}");
            // A crash after that restores the room with the new module, although the server refuses others.
            let again = RunningServer::start(&journal.fork(), |config| {
                config.module = keeper(true, LOAD_COUNT);
            })
            .await;
            let mut ann = again.join("lobby?token=ann").await;
            assert_eq!(ann.hear().await, 1001, "{what}");
            ann.say("text").await;
            assert_eq!(ann.hear().await, 203, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_whose_state_does_not_pass_keeps_its_module_or_begins_anew() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.module = keeper(false, LOAD_COUNT);
    })
    .await;
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1001);
    for n in 1..=3 {
        client.say("text").await;
        assert_eq!(client.hear().await, n);
    }
    server.stop().await.expect("it stops");
    let lacking = counter();
    let failing = keeper(true, "unreachable");
    for module in [lacking, failing] {
        let start = |policy| {
            let (journal, module) = (journal.fork(), module.clone());
            async move {
                let change = |config: &mut ServerConfig| {
                    (config.module, config.upgrade) = (module, policy);
                };
                let server = RunningServer::start(&journal, change).await;
                let mut client = server.join("lobby").await;
                // The first client has left.
                assert_eq!(client.hear().await, 1002);
                client.say("text").await;
                client.hear().await
            }
        };
        assert_eq!(start(ModuleUpgrade::Hook).await, 4);
        assert!([1, 100].contains(&start(ModuleUpgrade::HookOrRestart).await));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_was_not_kept_is_said_and_the_room_is_left() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.module = keeper(false, LOAD_COUNT);
    })
    .await;
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1001);
    drop(client);
    server.stop().await.expect("it stops");
    let stored = journal.stored("lobby").expect("it is stored");
    let journal = MemoryJournal::with_room("lobby", stored.clone());
    let server = RunningServer::start(&journal, |config| {
        config.module = keeper(true, LOAD_COUNT);
        config.upgrade = ModuleUpgrade::Hook;
    })
    .await;
    let (code, reason) = server.join("lobby").await.closed().await;
    assert_eq!(code, 1011);
    assert!(reason.contains("module was not kept"), "{reason}");
    assert_eq!(journal.stored("lobby"), Some(stored));
    assert_eq!(journal.quarantine("lobby"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_rooms_pass_their_state_when_the_module_is_replaced() {
    let journal = MemoryJournal::new();
    for is_journaled in [false, true] {
        let change = |config: &mut ServerConfig| config.module = keeper(false, LOAD_COUNT);
        let server = match is_journaled {
            true => RunningServer::start(&journal, change).await,
            false => RunningServer::without_journal(change).await,
        };
        let mut client = server.join("lobby").await;
        assert_eq!(client.hear().await, 1001);
        client.say("text").await;
        assert_eq!(client.hear().await, 1);
        let replaced = server.control.replace_module(&keeper(true, LOAD_COUNT));
        replaced.expect("it is a room");
        // It says nothing of its own, so it is asked until it answers in the new module's way.
        let mut count = 1;
        loop {
            client.say("text").await;
            let next = client.hear().await;
            assert!(
                next == count + 1 || next == count + 100,
                "{next} after {count}"
            );
            if next == count + 100 {
                count = next;
                break;
            }
            count = next;
        }
        if is_journaled {
            let again = RunningServer::start(&journal.fork(), |config| {
                config.module = keeper(true, LOAD_COUNT);
            })
            .await;
            let mut client = again.join("lobby").await;
            assert_eq!(client.hear().await, 1002);
            client.say("text").await;
            assert_eq!(client.hear().await, count + 100);
        }
        // A module without the exports begins anew, and tells the guest of its client.
        server
            .control
            .replace_module(&counter())
            .expect("it is a room");
        while client.hear().await != 1001 {}
        server.stop().await.expect("it stops");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_is_refused_and_kept() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1001);
    for n in 1..=3 {
        client.say("text").await;
        assert_eq!(client.hear().await, n);
    }
    let intact = journal.stored("lobby").expect("it is stored");
    for damage in 0..4 {
        let mut stored = intact.clone();
        match damage {
            0 => *stored.snapshot.room.last_mut().expect("bytes") ^= 1,
            1 => stored.snapshot.clients.truncate(3),
            // An event is missing.
            2 => stored.snapshot.events += 1,
            _ => stored.tail.truncate(stored.tail.len() - 2),
        }
        let damaged = MemoryJournal::with_room("lobby", stored.clone());
        let server = RunningServer::start(&damaged, |_| {}).await;
        let client = server.join("lobby").await;
        let (code, reason) = client.closed().await;
        assert_eq!(code, 1011, "{damage}: {reason}");
        let mut client = server.join("hall").await;
        assert_eq!(client.hear().await, 1001);
        drop(client);
        server.stop().await.expect("it stops");
        assert_eq!(damaged.stored("lobby"), Some(stored));
        let why = damaged.quarantine("lobby").expect("it is not tried again");
        assert!(reason.contains(&why[..30]), "{why}, not {reason}");
        let server = RunningServer::start(&damaged, |_| {}).await;
        let response = server.post("/rooms/lobby/close").await;
        assert!(response.starts_with("HTTP/1.1 409"), "{response}");
        assert!(response.contains("in quarantine"), "{response}");
        assert!(damaged.stored("lobby").is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_close_rooms_that_are_stored_or_being_restored() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    for room in ["stored", "restored"] {
        let mut client = server.join(room).await;
        assert_eq!(client.hear().await, 1001);
    }
    server.stop().await.expect("it stops");
    let server = RunningServer::start(&journal, |_| {}).await;
    let close = async |room: &str, status: &str| {
        let response = server.post(&format!("/rooms/{room}/close")).await;
        assert!(response.starts_with(status), "{room}: {response}");
    };
    assert!(journal.stored("stored").is_some());
    close("stored", "HTTP/1.1 200").await;
    close("stored", "HTTP/1.1 404").await;
    // Nor is a room opened by that.
    close("other", "HTTP/1.1 404").await;
    assert_eq!(journal.stored("stored"), None);
    assert_eq!(journal.stored("other"), None);

    journal.pause();
    let waiting = server.join("restored").await;
    let loading = async {
        while journal.waiting() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    eventually("it is loaded", loading).await;
    let closed = close("restored", "HTTP/1.1 200");
    // Most likely before it is loaded, and right in whichever order.
    let resumed = async {
        for _ in 0..5 {
            assert!(server.post("/ready").await.contains("405"));
        }
        journal.resume();
    };
    let (closed_client, (), ()) = tokio::join!(waiting.closed(), closed, resumed);
    assert_eq!(closed_client, (1001, "the room is closed".into()));
    assert_eq!(journal.stored("restored"), None);
    // And they open anew.
    for room in ["stored", "restored"] {
        let mut client = server.join(room).await;
        assert_eq!(client.hear().await, 1001);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_fails_ends_the_server_and_shows_nothing_more() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |_| {}).await;
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1001);
    journal.fail("the disk is broken");
    client.say("text").await;
    while let Some(Ok(message)) = eventually("the end", client.0.next()).await {
        assert!(!matches!(message, Message::Binary(_)), "it is not durable");
    }
    let ended = eventually("the end", server.ended).await.expect("no panic");
    let error = ended.expect_err("it ends with an error");
    assert!(
        error.to_string().contains("the storage has failed"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_tail_is_saved() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.message_rate = stateroom_wasmi_server::Rate::new(0, 0);
    })
    .await;
    let mut client = server.join("lobby").await;
    assert_eq!(client.hear().await, 1001);
    let text = "x".repeat(1000);
    let mut n = 0;
    while events(&journal, "lobby").is_none_or(|(_, saved)| saved == 0) {
        n += 1;
        assert!(n < 100_000, "it is saved");
        client.say(text.as_str()).await;
        assert_eq!(client.hear().await, n);
    }
    let again = RunningServer::start(&journal.fork(), |_| {}).await;
    let mut other = again.join("lobby").await;
    assert_eq!(other.hear().await, 1002);
    other.say("text").await;
    assert_eq!(other.hear().await, n + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_moment_loses_nothing_that_was_seen() {
    let journal = MemoryJournal::new();
    let server = RunningServer::start(&journal, |config| {
        config.room_idle = Duration::from_millis(1);
        config.hibernate_after = Some(Duration::from_millis(1));
    })
    .await;
    let mut seen = 0;
    let mut client = server.join("lobby?token=a").await;
    assert_eq!(client.hear().await, 1001);
    let mut copies = Vec::new();
    for round in 0..20 {
        client.say("text").await;
        if round % 3 == 0 {
            client.say(vec![1]).await;
        }
        // Before the reply, and after it.
        copies.push((seen, journal.fork()));
        loop {
            let heard = client.hear().await;
            if heard < 1000 {
                assert_eq!(heard, seen + 1);
                seen = heard;
                break;
            }
        }
        copies.push((seen, journal.fork()));
        if round % 5 == 4 {
            drop(client);
            sleep(Duration::from_millis(5)).await;
            copies.push((seen, journal.fork()));
            client = server.join("lobby?token=a").await;
            while client.hear().await != 1001 {}
        }
    }
    for (seen, copy) in copies {
        let again = RunningServer::start(&copy, |_| {}).await;
        let mut client = again.join("lobby?token=a").await;
        while client.hear().await != 1001 {}
        client.say("text").await;
        let next = loop {
            let heard = client.hear().await;
            if heard < 1000 {
                break heard;
            }
        };
        // The message before the crash may have been durable before its reply was seen.
        assert!((seen + 1..=seen + 2).contains(&next), "{next} after {seen}");
    }
}
