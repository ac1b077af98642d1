//! Attacks: afterwards no resources are leaked, and other clients lose no message.

use super::{Client, FINAL, RawClient, Server, TEXT, eventually};
use crate::support::{ENV, echo, guest_0_2};
use futures_util::future::join_all;
use std::{fs, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

/// The resources of a server's process, from `/proc`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResourceUsage {
    files: usize,
    pub(super) memory_mib: usize,
}

impl ResourceUsage {
    pub(super) fn of(server: &Server) -> Self {
        let process = format!("/proc/{}", server.process.id());
        let files = fs::read_dir(format!("{process}/fd"))
            .expect("no /proc")
            .count();
        let status = fs::read_to_string(format!("{process}/status")).expect("no /proc");
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a line");
        let kib: usize = resident
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        Self {
            files,
            memory_mib: kib >> 10,
        }
    }

    /// Waits until no more files are open than in `self`; returns the usage then.
    async fn settled(self, server: &Server) -> Self {
        eventually("the connections are closed", async {
            loop {
                let now = Self::of(server);
                if now.files <= self.files {
                    return now;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }
}

/// Opens this many connections, which end in different ways.
async fn connect_and_leave(server: Arc<Server>, count: usize) {
    for number in 0..count {
        let room = format!("/{}", number % 7);
        match number % 5 {
            0 => drop(TcpStream::connect(&server.address).await),
            1 => assert_eq!(server.get("/status").await.status, 200),
            2 => drop(RawClient::join(&server, &room).await),
            3 => {
                let mut client = RawClient::join(&server, &room).await;
                client.frame(FINAL | TEXT, b"hello").await;
                assert_eq!(client.receive().await, (FINAL | TEXT, b"hello".to_vec()));
            }
            _ => server.join(&room).await.leave().await,
        }
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn ten_thousand_connections_leak_nothing() {
    const AT_A_TIME: usize = 20;
    let server = Arc::new(Server::guest(
        &echo(),
        &["--connect-rate", "0", "--room-idle", "0"],
    ));
    let round = async |each: usize| {
        let tasks = (0..AT_A_TIME).map(|_| tokio::spawn(connect_and_leave(server.clone(), each)));
        for done in join_all(tasks).await {
            done.expect("a connection was rejected");
        }
    };
    let fresh = ResourceUsage::of(&server);
    // Warm up: allocations of the first connections may be reused.
    round(50).await;
    let warm = fresh.settled(&server).await;
    round(450).await;
    let after = fresh.settled(&server).await;
    eventually("the rooms are closed", async {
        while !server.rooms().await.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    println!("{fresh:?}, warm {warm:?}, after {after:?}");
    // Leaking 4 KiB per connection would be 36 MiB.
    assert!(
        after.memory_mib < warm.memory_mib + 16,
        "{fresh:?}, {warm:?}, then {after:?}"
    );
}

#[tokio::test]
async fn floods_of_rooms_are_bounded_and_end() {
    let server = Server::guest(&echo(), &["--max-rooms", "20", "--room-idle", "1"]);
    let mut client = server.join("/mine").await;
    client.send("mine").await;
    client.expect("mine").await;
    let mut flood = Vec::new();
    let mut rejected = 0;
    for number in 0..300_u64 {
        let name = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut raw = RawClient::join(&server, &format!("/{name:x}")).await;
        raw.frame(FINAL | TEXT, b"x").await;
        match raw.receive().await {
            (first, payload) if first == FINAL | TEXT => assert_eq!(payload, b"x"),
            (_, payload) => {
                assert_eq!(payload[..2], 1013_u16.to_be_bytes());
                assert!(String::from_utf8_lossy(&payload).contains("limit of 20 rooms"));
                rejected += 1;
                continue;
            }
        }
        flood.push(raw);
        assert!(server.rooms().await.len() <= 20);
    }
    assert_eq!((flood.len(), rejected), (19, 281));
    client.send("still mine").await;
    client.expect("still mine").await;
    drop(flood);
    eventually("the other rooms are closed", async {
        while server.rooms().await.len() > 1 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut fresh = server.join("/another").await;
    fresh.send("hello").await;
    fresh.expect("hello").await;
}

/// Opens rooms whose ids take six times their length in JSON.
async fn open_rooms(server: Arc<Server>, first: usize, count: usize) {
    for number in first..first + count {
        let id = format!("/{number}{}", "%01".repeat(250));
        let mut client = RawClient::join(&server, &id).await;
        client.frame(FINAL | TEXT, b"x").await;
        assert_eq!(client.receive().await, (FINAL | TEXT, b"x".to_vec()));
    }
}

#[tokio::test]
async fn room_lists_that_are_not_read_are_bounded() {
    const EACH: usize = 200;
    let server = Arc::new(Server::guest(
        &echo(),
        &[
            "--connect-rate",
            "0",
            "-i",
            "10",
            "-t",
            "25",
            "--room-idle",
            "3600",
        ],
    ));
    let tasks = (0..10).map(|task| tokio::spawn(open_rooms(server.clone(), task * EACH, EACH)));
    for done in join_all(tasks).await {
        done.expect("a connection was rejected");
    }
    // Lists of 3 MB exceed the socket buffers. A busy machine makes few of them in a second, so the
    // first must not time out too soon.
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(4096)
            .expect("cannot set the buffer size");
        let address = server.address.parse().expect("an address");
        let mut stream = socket.connect(address).await.expect("the server listens");
        stream
            .write_all(b"GET /rooms HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .expect("cannot write");
        deaf.push(stream);
    }
    eventually("a list is rejected", async {
        while server.get("/rooms").await.status != 503 {}
    })
    .await;
    // Once the others time out, lists are served again.
    eventually("a list is served", async {
        while server.get("/rooms").await.status != 200 {}
    })
    .await;
    assert_eq!(server.rooms().await.len(), 10 * EACH);
}

/// A guest that echoes, but on texts that start with `h` loops endlessly, with `m` grows its memory
/// endlessly, and with `s` sends messages endlessly.
fn hostile() -> String {
    let on = |letter: char, then: &str| {
        format!(
            "(if (i32.eq (i32.load8_u (local.get 1)) (i32.const {})) (then {then}))",
            letter as u32
        )
    };
    let message = [
        &on('h', "(loop $again (br $again))"),
        &on('m', "(loop $again (drop (memory.grow (i32.const 16))) (br $again))"),
        &on(
            's',
            "(loop $again (call $send_binary (i32.const 0) (i32.const 0) (i32.const 1024)) (br $again))",
        ),
        "(call $send_message (local.get 0) (local.get 1) (local.get 2))",
    ]
    .concat();
    guest_0_2(ENV, &[("message", &message)], "")
}

/// Sends numbers to an echo room until `stop`, at least `at_least`; returns how many were echoed.
async fn exchange(
    mut client: Client,
    at_least: u32,
    stop: tokio::sync::watch::Receiver<bool>,
) -> u32 {
    let mut count = 0;
    while count < at_least || !*stop.borrow() {
        // Several in flight.
        for number in count..count + 4 {
            client.send(format!("{number}")).await;
        }
        for number in count..count + 4 {
            client.expect(&format!("{number}")).await;
        }
        count += 4;
    }
    client.leave().await;
    count
}

/// Runs an attack while two other clients use a room of their own; then checks that they lost no
/// message.
async fn beside_other_clients(server: &Server, attack: impl Future<Output = ()>) {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    // Keeps the room open.
    let mut witness = server.join("/good").await;
    witness.send("one").await;
    witness.expect("one").await;
    let before = server.room("good").await.expect("the room is open");
    let clients = [server.join("/good").await, server.join("/good").await];
    let clients = clients.map(|client| tokio::spawn(exchange(client, 200, stopped.clone())));
    attack.await;
    let _ = stop.send(true);
    let mut sent = 0;
    for client in clients {
        sent += u64::from(client.await.expect("all messages were echoed"));
    }
    let after = server.room("good").await.expect("the room is open");
    for figure in ["messages_in", "messages_out"] {
        let number = |room: &serde_json::Value| room[figure].as_u64().expect("a number");
        assert_eq!(number(&after) - number(&before), sent, "{figure}");
    }
    witness.send("two").await;
    witness.expect("two").await;
}

#[tokio::test]
async fn hostile_rooms_do_not_disturb_an_echo() {
    // One worker: the worst case.
    let server = Server::guest(
        &hostile(),
        &[
            "--workers",
            "1",
            "--max-fuel-per-event",
            "5000000",
            "--room-idle",
            "0",
        ],
    );
    let rooms = [
        ("/hog", "h", "units of fuel"),
        ("/bomb", "m", "units of fuel"),
        ("/flood", "s", "more than 4096 messages"),
    ];
    beside_other_clients(&server, async {
        join_all(rooms.map(|(room, word, why)| {
            let server = &server;
            async move {
                for _ in 0..3 {
                    let mut client = server.join(room).await;
                    client.send(word).await;
                    let (code, reason) = client.closed().await;
                    assert_eq!(code, 1011, "{room}: {reason}");
                    assert!(reason.contains(why), "{room}: {reason}");
                }
            }
        }))
        .await;
    })
    .await;
    eventually("only one room is left", async {
        while server.rooms().await.len() > 1 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// All kinds of hostile clients at once.
async fn attack(server: &Server) {
    let long_message = async {
        for _ in 0..5 {
            let mut client = RawClient::join(server, "/long").await;
            client.frame(FINAL | 2, &vec![0; 2 << 20]).await;
            assert_eq!(client.closed().await, 1009);
        }
    };
    let broken_text = async {
        for _ in 0..20 {
            let mut client = RawClient::join(server, "/text").await;
            client.frame(FINAL | TEXT, b"\xff").await;
            assert_eq!(client.closed().await, 1007);
        }
    };
    let garbage = async {
        for _ in 0..20 {
            server.request(b"\x16\x03\x01garbage\r\n\r\n").await;
        }
    };
    // Unfinished requests, dropped at the end of the attack.
    let half_open = async {
        let mut idle = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(&server.address)
                .await
                .expect("the server listens");
            stream
                .write_all(b"GET /ws HTTP/1.1\r\nHo")
                .await
                .expect("cannot write");
            idle.push(stream);
        }
        sleep(Duration::from_secs(1)).await;
    };
    let random_rooms = async {
        for number in 0..100 {
            drop(server.join(&format!("/random-{number}")).await);
        }
    };
    // Sends much, reads nothing, and disconnects.
    let deaf_flood = async {
        let mut client = RawClient::join(server, "/deaf").await;
        let mut frame = vec![FINAL | TEXT, 0x80 | 100, 0, 0, 0, 0];
        frame.resize(106, b'x');
        let flood = async { while client.0.write_all(&frame).await.is_ok() {} };
        let _ = timeout(Duration::from_secs(2), flood).await;
    };
    let faults = async {
        for word in ["h", "m", "s"] {
            let mut client = server.join("/faults").await;
            client.send(word).await;
            assert_eq!(client.closed().await.0, 1011);
        }
    };
    tokio::join!(
        long_message,
        broken_text,
        garbage,
        half_open,
        random_rooms,
        deaf_flood,
        faults
    );
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn combined_attacks_do_not_disturb_other_clients() {
    let args = [
        "--max-fuel-per-event",
        "5000000",
        "--room-idle",
        "0",
        "--max-rooms",
        "200",
    ];
    let server = Server::guest(&hostile(), &args);
    let fresh = ResourceUsage::of(&server);
    let mut warm = None;
    for _ in 0..3 {
        beside_other_clients(&server, attack(&server)).await;
        let after = fresh.settled(&server).await;
        eventually("the rooms are closed", async {
            while !server.rooms().await.is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        // Warm up: allocations of the first attack may be reused.
        let warm = *warm.get_or_insert(after);
        println!("{fresh:?}, warm {warm:?}, after {after:?}");
        assert!(
            after.memory_mib < warm.memory_mib + 32,
            "{fresh:?}, {warm:?}, then {after:?}"
        );
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn all_send_queues_together_are_bounded() {
    const DEAF: usize = 24;
    // Sends 60 KB to everybody.
    let message = "(call $send_binary (i32.const 0) (i32.const 0) (i32.const 60000))";
    let server = Server::guest(
        &guest_0_2(ENV, &[("message", message)], ""),
        &[
            "--workers",
            "1",
            "--max-total-queued-bytes",
            "8000000",
            "-t",
            "3600",
        ],
    );
    let mut reader = server.join("/room").await;
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        deaf.push(RawClient::join(&server, "/room").await);
    }
    let clients = |count: usize| {
        move |room: Option<&serde_json::Value>| {
            room.is_some_and(|room| room["clients"].as_u64() <= Some(count as u64))
        }
    };
    server
        .until_room("room", "all have joined", |room| {
            room.is_some_and(|room| room["clients"] == 1 + DEAF)
        })
        .await;
    let fresh = ResourceUsage::of(&server);
    // Each of them alone would queue 8 MiB.
    eventually("most that do not read are disconnected", async {
        while !clients(1 + DEAF / 4)(server.room("room").await.as_ref()) {
            reader.send("more").await;
            assert_eq!(reader.receive().await.len(), 60_000);
            let now = ResourceUsage::of(&server);
            assert!(
                now.memory_mib < fresh.memory_mib + 32,
                "{fresh:?}, then {now:?}"
            );
        }
    })
    .await;
    // The one that reads is still there, and so are most of the others that were never full.
    reader.send("more").await;
    assert_eq!(reader.receive().await.len(), 60_000);
    drop(deaf);
    server
        .until_room("room", "the others have left", clients(1))
        .await;
}

#[tokio::test]
async fn opening_large_rooms_disturbs_no_echo() {
    let large = echo().replace(
        "(memory (export \"memory\") 1)",
        "(memory (export \"memory\") 1024)",
    );
    assert!(large.contains("1024"), "{large}");
    let server = Server::guest(
        &large,
        &["--workers", "1", "--room-idle", "0", "--connect-rate", "0"],
    );
    beside_other_clients(&server, async {
        for number in 0..100 {
            let mut client = server.join(&format!("/large-{number}")).await;
            client.send("hello").await;
            client.expect("hello").await;
        }
    })
    .await;
}
