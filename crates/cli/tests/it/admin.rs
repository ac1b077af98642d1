//! What operators ask for: where, with which token, and what they get.

use super::{Response, Server, TempDir, bundled_path, eventually, read_head, request_of, tool};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::sleep,
};

const PATHS: [&str; 5] = [
    "/metrics",
    "/rooms",
    "/health",
    "/ready",
    "/rooms/lobby/snapshot",
];

impl Server {
    async fn admin(&self, method: &str, path: &str) -> Response {
        self.ask(&self.admin, method, path, "").await
    }

    /// Waits until the address for operators lists a room with so many clients.
    async fn until_joined(&self, id: &str, clients: usize) {
        let joined = async {
            loop {
                let list = self.admin("GET", "/rooms").await.body;
                let list: Value = serde_json::from_str(&list).expect("JSON");
                let rooms = list["rooms"].as_array().expect("a list").clone();
                if rooms
                    .iter()
                    .any(|room| room["id"] == id && room["clients"] == clients)
                {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        eventually("the client has joined", joined).await;
    }

    /// The metrics, by name and labels.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let response = self.admin("GET", "/metrics").await;
        assert_eq!(response.status, 200);
        let lines = response.body.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                (name.to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }
}

#[tokio::test]
async fn metrics_count_what_has_happened() {
    let args = ["--admin-listen", "127.0.0.1:0", "--busiest-rooms", "1"];
    let server = Server::bundled("hostile-rust-small", &args);
    let before = server.metrics().await;
    assert_eq!(before["stateroom_messages_received_total"], 0.0);
    let mut failing = server.join("/one").await;
    failing.send("panic").await;
    assert_eq!(failing.closed().await.0, 1011);
    let mut client = server.join("/t%22wo%0A").await;
    client.send("hello").await;
    client.expect("hello").await;
    client.send("hi").await;
    client.expect("hi").await;
    let after = server.metrics().await;
    for (name, expected) in [
        ("stateroom_rooms{state=\"open\"}", 1.0),
        ("stateroom_rooms_opened_total", 2.0),
        ("stateroom_connections", 1.0),
        ("stateroom_clients_joined_total", 2.0),
        ("stateroom_clients_closed_total{code=\"1011\"}", 1.0),
        // Two connects and three messages.
        ("stateroom_events_total", 5.0),
        ("stateroom_messages_received_total", 3.0),
        ("stateroom_received_bytes_total", 12.0),
        ("stateroom_outputs_total", 2.0),
        ("stateroom_messages_sent_total", 2.0),
        ("stateroom_sent_bytes_total", 7.0),
        ("stateroom_faults_total{kind=\"unreachable\"}", 1.0),
        ("stateroom_http_responses_total{status=\"101\"}", 2.0),
        ("stateroom_log_lines_lost_total", 0.0),
        ("stateroom_journal_write_seconds_count", 0.0),
        ("stateroom_busiest_room_clients{room=\"t\\\"wo\\n\"}", 1.0),
    ] {
        assert_eq!(after.get(name), Some(&expected), "{name} in {after:#?}");
    }
    // The fuel of both rooms, of which one is gone.
    let fuel = "stateroom_busiest_room_fuel_total{room=\"t\\\"wo\\n\"}";
    assert!(after["stateroom_fuel_total"] > after[fuel]);
    // At least one for each event, and for what both rooms did when they were opened.
    assert!(after["stateroom_event_seconds_count"] >= 7.0);
    assert!(after["stateroom_event_seconds_sum"] > 0.0);
}

#[tokio::test]
async fn what_is_stored_is_measured_and_a_loaded_room_counts_once() {
    let folder = TempDir::new();
    let data = folder.0.join("data");
    let data = data.to_str().expect("a path");
    let args = ["--admin-listen", "127.0.0.1:0", "--data", data];
    let mut server = Server::bundled("counter-c", &args);
    let mut client = server.join("/r").await;
    for _ in 0..3 {
        client.send("+").await;
        let _ = client.receive().await;
    }
    let first = server.metrics().await;
    assert!(first["stateroom_journal_write_seconds_count"] >= 2.0);
    assert!(first["stateroom_fuel_total"] > 0.0);
    server.signal("-TERM");
    assert!(server.exited().await.success());
    let server = Server::bundled("counter-c", &args);
    let _client = server.join("/r").await;
    let joined = |metrics: &BTreeMap<String, f64>| metrics["stateroom_connections"] == 1.0;
    let mut second = server.metrics().await;
    while !joined(&second) || second["stateroom_rooms_restoring"] > 0.0 {
        second = server.metrics().await;
    }
    // What the room did before the restart was that process's.
    assert!(second["stateroom_events_total"] < first["stateroom_events_total"]);
    assert!(second["stateroom_fuel_total"] < first["stateroom_fuel_total"]);
}

#[tokio::test]
async fn operators_ask_where_they_may() {
    // While a room is developed, there is one address for all.
    let server = Server::bundled("counter-c", &[]);
    let _client = server.join("/lobby").await;
    for path in PATHS {
        let expected = if path.ends_with("/snapshot") {
            409
        } else {
            200
        };
        assert_eq!(server.get(path).await.status, expected, "{path}");
    }
    // A proxy may pass everything on.
    let server = Server::bundled("counter-c", &["--allow-origin", "https://game.example"]);
    for path in PATHS {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    let server = Server::bundled("counter-c", &["--host", "0.0.0.0"]);
    for path in PATHS {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    let server = Server::bundled("counter-c", &["--admin-listen", "127.0.0.1:0"]);
    for path in PATHS {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    assert!(server.admin("GET", "/").await.body.starts_with("<!doctype"));
    for path in ["/ws", "/ws/lobby", "/status", "/page"] {
        assert_eq!(server.admin("GET", path).await.status, 404, "{path}");
    }
    // An attacker's page whose name resolves to this address.
    let request = "GET /rooms HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let response = request_of(&server.admin, request.as_bytes()).await;
    assert!(response.starts_with(b"HTTP/1.1 403"));
    let page = "Origin: https://evil.example\r\nContent-Length: 0\r\n";
    let response = server.ask(&server.admin, "POST", "/drain", page).await;
    assert_eq!(response.status, 403);
    assert_eq!(server.admin("GET", "/drain").await.status, 405);
    assert_eq!(server.admin("POST", "/metrics").await.status, 405);
}

#[tokio::test]
async fn operators_need_the_token() {
    let folder = TempDir::new();
    let file = folder.write("token", "s3cret-of-operators\n");
    let file = file.to_str().expect("a path");
    let module = bundled_path("counter-c");
    let module = module.to_str().expect("a path");
    // Else everybody could ask.
    let refused = tool(&[
        "serve",
        module,
        "--port",
        "0",
        "--admin-listen",
        "0.0.0.0:0",
    ]);
    assert!(!refused.status.success());
    let error = String::from_utf8(refused.stderr).expect("text");
    assert!(error.contains("operators must have a token"), "{error}");

    let args = ["--admin-listen", "0.0.0.0:0", "--admin-token-file", file];
    let mut server = Server::bundled("counter-c", &args);
    let port = server.admin.rsplit(':').next().expect("a port");
    server.admin = format!("127.0.0.1:{port}");
    for path in ["/health", "/ready"] {
        assert_eq!(server.admin("GET", path).await.status, 200, "{path}");
    }
    for header in [
        "",
        "Authorization: Bearer s3cret-of-operator\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Basic s3cret-of-operators\r\n",
        "Authorization: s3cret-of-operators\r\n",
        "Authorization: Bearer wrong\r\nAuthorization: Bearer s3cret-of-operators\r\n",
    ] {
        for (method, path) in [
            ("GET", "/metrics"),
            ("GET", "/rooms"),
            ("GET", "/rooms/r/events"),
            ("POST", "/drain"),
        ] {
            let response = server.ask(&server.admin, method, path, header).await;
            assert_eq!(response.status, 401, "{method} {path} {header}");
            assert!(response.head.contains("www-authenticate: bearer"));
        }
    }
    let header = "authorization: bearer s3cret-of-operators\r\n";
    let response = server.ask(&server.admin, "GET", "/rooms", header).await;
    assert_eq!(response.status, 200);
    server.signal("-TERM");
    server.exited().await;
    assert!(!server.log.lock().expect("not poisoned").contains("s3cret"));
}

#[tokio::test]
async fn operators_save_and_close_rooms_and_drain_the_server() {
    let args = ["--admin-listen", "127.0.0.1:0", "--on-fault", "rollback"];
    let server = Server::bundled("counter-c", &args);
    let mut client = server.join("/a%2Fb").await;
    client.send("+").await;
    let _ = client.receive().await;
    let address = &server.admin;
    let get = format!(
        "GET /rooms/a%2Fb/snapshot HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    );
    let response = request_of(address, get.as_bytes()).await;
    let body = response.windows(4).position(|end| end == b"\r\n\r\n");
    let snapshot = &response[body.expect("a head") + 4..];
    let info = stateroom_wasmi_host::SnapshotInfo::read(snapshot).expect("it is a snapshot");
    let module = std::fs::read(bundled_path("counter-c")).expect("it is there");
    assert_eq!(info.module, stateroom_wasmi_host::ModuleHash::of(&module));
    for room in [
        "/rooms/other/snapshot",
        "/rooms/a/b/snapshot",
        "/rooms//snapshot",
    ] {
        assert_eq!(server.admin("GET", room).await.status, 404, "{room}");
    }
    assert_eq!(server.admin("GET", "/rooms/%ff/snapshot").await.status, 400);

    let drained = server.admin("POST", "/drain").await;
    assert_eq!(drained.status, 200);
    assert_eq!(server.admin("GET", "/ready").await.status, 503);
    assert_eq!(server.admin("GET", "/health").await.status, 200);
    let error = server
        .try_join("/other")
        .await
        .err()
        .expect("it is drained");
    assert!(error.to_string().contains("503"), "{error}");
    // Those that are there stay.
    client.send("+").await;
    let _ = client.receive().await;

    assert_eq!(server.admin("POST", "/rooms/other/close").await.status, 404);
    assert_eq!(server.admin("POST", "/rooms/a%2Fb/close").await.status, 200);
    assert_eq!(client.closed().await.0, 1001);
}

/// A response with what happens in a room, which goes on.
struct Watch(BufReader<TcpStream>);

impl Watch {
    /// Also the status.
    async fn open(server: &Server, room: &str) -> (Self, u16) {
        let address = &server.admin;
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET /rooms/{room}/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let head = async {
            stream.write_all(request.as_bytes()).await?;
            read_head(&mut stream).await
        };
        let head = eventually("a response", head).await.expect("a response");
        let status = head.split(' ').nth(1).expect("a status");
        let status = status.parse().expect("a number");
        if status == 200 {
            assert!(head.contains("content-type: text/event-stream"), "{head}");
        }
        (Self(BufReader::new(stream)), status)
    }

    /// The next event; none if there is none any more.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            let read = eventually("an event", self.0.read_line(&mut line)).await;
            if read.expect("it is open") == 0 {
                return None;
            }
            // The others are those of chunks.
            if let Some(event) = line.strip_prefix("data: ") {
                let mut event: Value = serde_json::from_str(event).expect("JSON");
                let at = event["at"].take();
                assert!(at.as_u64() > Some(1_700_000_000_000), "{at}");
                event.as_object_mut().expect("an object").remove("at");
                return Some(event);
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, event: Value) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move { assert_eq!(self.next().await, Some(event), "at {caller}") }
    }
}

#[tokio::test]
async fn operators_see_what_happens_in_a_room() {
    let args = ["--admin-listen", "127.0.0.1:0", "--message-rate", "0"];
    let server = Server::bundled("echo-c", &args);
    assert_eq!(Watch::open(&server, "r").await.1, 404);
    let mut client = server.join("/r").await;
    server.until_joined("r", 1).await;
    let (mut watch, status) = Watch::open(&server, "r").await;
    assert_eq!(status, 200);
    let other = server.join("/r").await;
    watch.expect(json!({"event": "connect", "client": 2})).await;
    client.send("hello \u{1b}").await;
    let text =
        |event: &str| json!({"event": event, "client": 1, "text": "hello \u{1b}", "bytes": 7});
    watch.expect(text("message")).await;
    watch.expect(text("to")).await;
    client.send(vec![0, 255]).await;
    let bytes = |event: &str| json!({"event": event, "client": 1, "hex": "00ff", "bytes": 2});
    watch.expect(bytes("message")).await;
    watch.expect(bytes("to")).await;
    other.leave().await;
    watch
        .expect(json!({"event": "disconnect", "client": 2}))
        .await;
    // Of a long message, the beginning.
    let long = "é".repeat(2000);
    client.send(&*format!("x{long}")).await;
    let event = watch.next().await.expect("it is open");
    let shown = event["text"].as_str().expect("a text");
    assert_eq!((shown.len(), &event["bytes"]), (1023, &json!(4001)));
    watch.next().await;

    // Who floods the room has all of it handled, and the operator sees that there was more.
    for _ in 0..3 {
        let _ = client.receive().await;
    }
    for n in 0..2000 {
        client.send(n.to_string()).await;
        client.expect(&n.to_string()).await;
    }
    let skipped = async {
        loop {
            let event = watch.next().await.expect("it is open");
            if let Some(skipped) = event["skipped"].as_u64() {
                return skipped;
            }
            // Something has to happen for that to be said.
            client.send("more").await;
        }
    };
    assert!(eventually("a count", skipped).await > 0);
    let closed = server.admin("POST", "/rooms/r/close").await;
    assert_eq!(closed.status, 200);
    while watch.next().await.is_some() {}
}

#[tokio::test]
async fn few_watch_at_once() {
    let server = Server::bundled("echo-c", &["--admin-listen", "127.0.0.1:0"]);
    let mut client = server.join("/r").await;
    server.until_joined("r", 1).await;
    let mut watches = Vec::new();
    for _ in 0..8 {
        let (watch, status) = Watch::open(&server, "r").await;
        assert_eq!(status, 200);
        watches.push(watch);
    }
    assert_eq!(Watch::open(&server, "r").await.1, 503);
    let head = server.admin("HEAD", "/rooms/r/events").await;
    assert_eq!(head.status, 503);
    // One that has gone makes space, also if nothing happens in the room.
    watches.pop();
    let space = async {
        while Watch::open(&server, "r").await.1 != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    eventually("space for another one", space).await;
    client.send("hello").await;
    client.expect("hello").await;
    for watch in &mut watches {
        let event = watch.next().await.expect("it is open");
        assert_eq!(event["text"], "hello");
    }
}

#[tokio::test]
async fn that_all_pages_may_join_rooms_lets_none_be_an_operator() {
    for allowed in ["*", "null", "https://evil.example"] {
        let args = ["--admin-listen", "127.0.0.1:0", "--allow-origin", allowed];
        let server = Server::bundled("counter-c", &args);
        let _client = server.join("/r").await;
        // Of a page that an operator's browser has loaded, and of one without an origin of its own.
        for origin in ["https://evil.example", "null"] {
            let header = format!("Origin: {origin}\r\n");
            for path in ["/drain", "/rooms/r/close"] {
                let response = server.ask(&server.admin, "POST", path, &header).await;
                assert_eq!(response.status, 403, "{allowed} {origin} {path}");
            }
        }
        // Of one whose name was made to resolve to this address.
        let get = b"GET /rooms HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
        let response = request_of(&server.admin, get).await;
        let head = String::from_utf8_lossy(&response);
        assert!(head.starts_with("HTTP/1.1 403"), "{allowed} {head}");
        assert_eq!(server.admin("GET", "/ready").await.status, 200);
        // Operators themselves send none, and their own page sends its own.
        let header = format!("Origin: http://{}\r\n", server.admin);
        let response = server.ask(&server.admin, "POST", "/drain", &header).await;
        assert_eq!(response.status, 200);
    }
}
