//! Floods: what is there afterwards is what was there before, and who behaves loses nothing.

use super::{Client, FINAL, RawClient, Server, TEXT, soon};
use crate::support::{ENV, echo, guest_0_2};
use futures_util::future::join_all;
use std::{fs, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

/// What a server's process holds, as Linux tells.
#[derive(Debug, Clone, Copy)]
struct Held {
    files: usize,
    memory_mib: usize,
}

impl Held {
    fn by(server: &Server) -> Self {
        let process = format!("/proc/{}", server.process.id());
        let files = fs::read_dir(format!("{process}/fd"))
            .expect("Linux")
            .count();
        let status = fs::read_to_string(format!("{process}/status")).expect("Linux");
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

    /// Waits until no more files are open than before; answers what is held then.
    async fn again(self, server: &Server) -> Self {
        soon("the connections are closed", async {
            loop {
                let now = Self::by(server);
                if now.files <= self.files {
                    return now;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }
}

/// Connects so often, in each of the ways that a connection may end.
async fn come_and_go(server: Arc<Server>, count: usize) {
    for number in 0..count {
        let room = format!("/{}", number % 7);
        match number % 5 {
            0 => drop(TcpStream::connect(&server.address).await),
            1 => assert_eq!(server.get("/status").await.status, 200),
            2 => drop(RawClient::join(&server, &room).await),
            3 => {
                let mut client = RawClient::join(&server, &room).await;
                client.frame(FINAL | TEXT, b"hello").await;
                assert_eq!(client.hear().await, (FINAL | TEXT, b"hello".to_vec()));
            }
            _ => server.join(&room).await.leave().await,
        }
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn ten_thousand_connections_leave_nothing_behind() {
    const AT_A_TIME: usize = 20;
    let server = Arc::new(Server::guest(
        &echo(),
        &["--connect-rate", "0", "--room-idle", "0"],
    ));
    let round = async |each: usize| {
        let tasks = (0..AT_A_TIME).map(|_| tokio::spawn(come_and_go(server.clone(), each)));
        for done in join_all(tasks).await {
            done.expect("nobody is refused");
        }
    };
    let fresh = Held::by(&server);
    // What the first of them need may stay for the others.
    round(50).await;
    let warm = fresh.again(&server).await;
    round(450).await;
    let after = fresh.again(&server).await;
    soon("the rooms are closed", async {
        while !server.rooms().await.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    println!("{fresh:?}, warm {warm:?}, after {after:?}");
    // 4 KiB of each would be 36 MiB.
    assert!(
        after.memory_mib < warm.memory_mib + 16,
        "{fresh:?}, {warm:?}, then {after:?}"
    );
}

#[tokio::test]
async fn rooms_by_random_name_are_bounded_and_make_way() {
    let server = Server::guest(&echo(), &["--max-rooms", "20", "--room-idle", "1"]);
    let mut client = server.join("/mine").await;
    client.say("mine").await;
    client.expect("mine").await;
    let mut flood = Vec::new();
    let mut refused = 0;
    for number in 0..300_u64 {
        let name = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut raw = RawClient::join(&server, &format!("/{name:x}")).await;
        raw.frame(FINAL | TEXT, b"x").await;
        match raw.hear().await {
            (first, payload) if first == FINAL | TEXT => assert_eq!(payload, b"x"),
            (_, payload) => {
                assert_eq!(payload[..2], 1013_u16.to_be_bytes());
                assert!(String::from_utf8_lossy(&payload).contains("limit of 20 rooms"));
                refused += 1;
                continue;
            }
        }
        flood.push(raw);
        assert!(server.rooms().await.len() <= 20);
    }
    assert_eq!((flood.len(), refused), (19, 281));
    client.say("still mine").await;
    client.expect("still mine").await;
    drop(flood);
    soon("the other rooms are closed", async {
        while server.rooms().await.len() > 1 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut fresh = server.join("/another").await;
    fresh.say("hello").await;
    fresh.expect("hello").await;
}

/// Opens rooms whose ids take six times their length in JSON; they stay open for a while.
async fn open_rooms(server: Arc<Server>, first: usize, count: usize) {
    for number in first..first + count {
        let id = format!("/{number}{}", "%01".repeat(250));
        let mut client = RawClient::join(&server, &id).await;
        client.frame(FINAL | TEXT, b"x").await;
        assert_eq!(client.hear().await, (FINAL | TEXT, b"x".to_vec()));
    }
}

#[tokio::test]
async fn lists_of_rooms_that_nobody_takes_are_bounded() {
    const EACH: usize = 200;
    let server = Arc::new(Server::guest(&echo(), &["--connect-rate", "0", "-t", "8"]));
    let tasks = (0..10).map(|task| tokio::spawn(open_rooms(server.clone(), task * EACH, EACH)));
    for done in join_all(tasks).await {
        done.expect("nobody is refused");
    }
    // Lists of 3 MB are more than the buffers of both sides hold.
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let address = server.address.parse().expect("an address");
        let mut stream = socket.connect(address).await.expect("the server listens");
        stream
            .write_all(b"GET /rooms HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .expect("the server reads");
        deaf.push(stream);
    }
    soon("there are too many", async {
        while server.get("/rooms").await.status != 503 {}
    })
    .await;
    // They are given up, and then there is a list again.
    soon("there is a list", async {
        while server.get("/rooms").await.status != 200 {}
    })
    .await;
    assert_eq!(server.rooms().await.len(), 10 * EACH);
}

/// A guest that echoes, but for texts that begin with `h` (an endless loop), `m` (memory for ever)
/// and `s` (messages to everybody without end).
fn wild() -> String {
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

/// Says numbers to a room that echoes and counts what comes back, until it is told to stop and has
/// said as many as it should.
async fn behave(
    mut client: Client,
    at_least: u32,
    stop: tokio::sync::watch::Receiver<bool>,
) -> u32 {
    let mut count = 0;
    while count < at_least || !*stop.borrow() {
        // Some are on the way at any time.
        for number in count..count + 4 {
            client.say(format!("{number}")).await;
        }
        for number in count..count + 4 {
            client.expect(&format!("{number}")).await;
        }
        count += 4;
    }
    client.leave().await;
    count
}

/// Runs an attack beside two clients who behave, in a room of their own; then checks that not one
/// message of theirs was lost.
async fn while_others_behave(server: &Server, attack: impl Future<Output = ()>) {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    // It stays so that the room does, too.
    let mut witness = server.join("/good").await;
    witness.say("one").await;
    witness.expect("one").await;
    let before = server.room("good").await.expect("it is open");
    let clients = [server.join("/good").await, server.join("/good").await];
    let clients = clients.map(|client| tokio::spawn(behave(client, 200, stopped.clone())));
    attack.await;
    let _ = stop.send(true);
    let mut said = 0;
    for client in clients {
        said += u64::from(client.await.expect("it hears all it said"));
    }
    let after = server.room("good").await.expect("it is open");
    for figure in ["messages_in", "messages_out"] {
        let number = |room: &serde_json::Value| room[figure].as_u64().expect("a number");
        assert_eq!(number(&after) - number(&before), said, "{figure}");
    }
    witness.say("two").await;
    witness.expect("two").await;
}

#[tokio::test]
async fn a_hog_and_a_bomb_beside_an_echo() {
    // All on one worker, the least fortunate case.
    let server = Server::guest(
        &wild(),
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
    while_others_behave(&server, async {
        join_all(rooms.map(|(room, word, why)| {
            let server = &server;
            async move {
                for _ in 0..3 {
                    let mut client = server.join(room).await;
                    client.say(word).await;
                    let (code, reason) = client.closed().await;
                    assert_eq!(code, 1011, "{room}: {reason}");
                    assert!(reason.contains(why), "{room}: {reason}");
                }
            }
        }))
        .await;
    })
    .await;
    soon("only one room is left", async {
        while server.rooms().await.len() > 1 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Everything at once that a hostile client may do.
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
            server.ask(b"\x16\x03\x01garbage\r\n\r\n").await;
        }
    };
    // Opened and left in the middle; given up when the attack is over.
    let half_open = async {
        let mut idle = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(&server.address)
                .await
                .expect("the server listens");
            stream
                .write_all(b"GET /ws HTTP/1.1\r\nHo")
                .await
                .expect("the server reads");
            idle.push(stream);
        }
        sleep(Duration::from_secs(1)).await;
    };
    let random_rooms = async {
        for number in 0..100 {
            drop(server.join(&format!("/random-{number}")).await);
        }
    };
    // Says much, takes nothing of what it is answered, and vanishes.
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
            client.say(word).await;
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
async fn all_of_it_at_once_harms_nobody_who_behaves() {
    let args = [
        "--max-fuel-per-event",
        "5000000",
        "--room-idle",
        "0",
        "--max-rooms",
        "200",
    ];
    let server = Server::guest(&wild(), &args);
    let fresh = Held::by(&server);
    let mut warm = None;
    for _ in 0..3 {
        while_others_behave(&server, attack(&server)).await;
        let after = fresh.again(&server).await;
        soon("the rooms are closed", async {
            while !server.rooms().await.is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        // What the first attack needs may stay for the next.
        let warm = *warm.get_or_insert(after);
        println!("{fresh:?}, warm {warm:?}, after {after:?}");
        assert!(
            after.memory_mib < warm.memory_mib + 32,
            "{fresh:?}, {warm:?}, then {after:?}"
        );
    }
}
