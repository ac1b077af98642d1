//! The response of each URL.

use super::{Client, Server, TempDir, bundled_path, eventually};
use crate::support::{self, assemble};
use std::time::Duration;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::test]
async fn status_is_ok() {
    let server = Server::bundled("echo-c", &[]);
    let status = server.get("/status").await;
    assert_eq!((status.status, status.body.as_str()), (200, "ok"));
}

#[tokio::test]
async fn programs_that_ask_for_json_get_the_status_of_stateroom_serve() {
    let server = Server::bundled("echo-c", &[]);
    let status = async |accept: &str| {
        let header = format!("Accept: {accept}\r\n");
        let response = server.ask(&server.address, "GET", "/status", &header).await;
        assert!(response.head.contains("\r\nvary: accept"));
        response
    };
    for other in ["*/*", "text/plain", "text/html, application/jsonx", ""] {
        assert_eq!(status(other).await.body, "ok", "{other}");
    }
    let json = async |accept: &str| -> serde_json::Value {
        let response = status(accept).await;
        assert!(response.head.contains("content-type: application/json"));
        serde_json::from_str(&response.body).expect("JSON")
    };
    let before = json("application/json").await;
    assert_eq!(before["active_connections"], 0);
    assert_eq!(before["listening"], true);
    let clients = [server.join("").await, server.join("/other").await];
    let during = json("text/plain;q=0.5, Application/JSON; charset=utf-8").await;
    let expected = serde_json::json!({
        "active_connections": 2,
        "seconds_inactive": 0,
        "listening": true,
    });
    assert_eq!(during, expected);
    for client in clients {
        client.leave().await;
    }
    eventually("it is inactive", async {
        loop {
            let after = json("application/json").await;
            if after["seconds_inactive"].as_u64() >= Some(1) {
                assert_eq!(after["active_connections"], 0);
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let drained = server.ask(&server.address, "POST", "/drain", "").await;
    assert_eq!(drained.status, 200);
    assert_eq!(json("application/json").await["listening"], false);
}

#[tokio::test]
async fn text_and_bytes_are_echoed_unchanged() {
    let server = Server::bundled("echo-c", &[]);
    let mut client = server.join("").await;
    for message in [
        Message::text("hello"),
        Message::binary(vec![0, 255, 128]),
        Message::text("žluťoučký 🦀"),
        Message::text(""),
        Message::binary(vec![]),
        Message::binary(vec![7; 70_000]),
    ] {
        client.send(message.clone()).await;
        assert_eq!(client.receive().await, message);
    }
}

/// Joins a chat room and reads its welcome.
async fn join_chat(server: &Server, path: &str) -> Client {
    let mut client = server.join(path).await;
    assert!(client.receive_text().await.starts_with("Welcome, guest"));
    client
}

#[tokio::test]
async fn the_path_names_the_room() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let names = [
        ("", ""),
        ("/lobby", "lobby"),
        ("/a%2Fb", "a/b"),
        ("/with%20two%20spaces", "with two spaces"),
        ("/%C5%BElu%C5%A5", "žluť"),
        ("/%F0%9F%A6%80", "🦀"),
        ("/a+b", "a+b"),
        ("/100%25", "100%"),
        ("/..%2F..%2Fetc", "../../etc"),
        ("/%00", "\0"),
    ];
    let mut clients = Vec::new();
    for (path, _) in names {
        clients.push(join_chat(&server, path).await);
    }
    let mut ids: Vec<_> = names.iter().map(|(_, id)| *id).collect();
    ids.sort_unstable();
    let rooms = server.rooms().await;
    let listed: Vec<_> = rooms
        .iter()
        .map(|room| room["id"].as_str().expect("a text"))
        .collect();
    assert_eq!(listed, ids);
    assert!(rooms.iter().all(|room| room["clients"] == 1));
}

#[tokio::test]
async fn ws_and_ws_slash_are_the_room_with_the_empty_id() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let mut first = join_chat(&server, "").await;
    let _second = join_chat(&server, "/").await;
    first.expect("guest2 joined.").await;
}

#[tokio::test]
async fn room_ids_must_be_utf_8() {
    let server = Server::bundled("echo-c", &[]);
    let Err(Error::Http(response)) = server.try_join("/%FF").await else {
        panic!("not rejected")
    };
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn a_path_below_a_room_is_none() {
    let server = Server::bundled("echo-c", &[]);
    for path in ["/a/b", "//", "/a/"] {
        let Err(Error::Http(response)) = server.try_join(path).await else {
            panic!("{path} is not rejected")
        };
        assert_eq!(response.status(), 404, "{path}");
    }
}

/// Replacing the bytes that are no UTF-8 would make one token of two.
#[tokio::test]
async fn a_query_has_at_most_one_token_and_is_utf_8() {
    let server = Server::bundled("echo-c", &[]);
    for query in [
        "token=%FF",
        "token=a%C3",
        "x=%FF&token=a",
        "token=a&token=b",
    ] {
        let Err(Error::Http(response)) = server.try_join(&format!("/r?{query}")).await else {
            panic!("{query} is not rejected")
        };
        assert_eq!(response.status(), 400, "{query}");
    }
    for query in ["x", "x=1&x=2", "token=%C3%BC", "&&token=a"] {
        server.join(&format!("/r?{query}")).await;
    }
}

#[tokio::test]
async fn a_token_restores_the_id() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let mut first = server.join("/r?token=ada%20l").await;
    first
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    let mut second = server.join("/r?token=bob").await;
    second
        .expect("Welcome, guest2. Commands: /nick NAME, /who.")
        .await;
    first.leave().await;
    second.expect("guest1 left.").await;

    // Without a token, or with an empty one, a client is new.
    for (path, id) in [("/r", 3), ("/r?token=", 4), ("/r?token=", 5)] {
        let mut other = server.join(path).await;
        other
            .expect(&format!("Welcome, guest{id}. Commands: /nick NAME, /who."))
            .await;
        second.expect(&format!("guest{id} joined.")).await;
        other.leave().await;
        second.expect(&format!("guest{id} left.")).await;
    }

    let mut first = server.join("/r?token=ada%20l").await;
    first
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
    // Tokens belong to one room.
    let mut elsewhere = server.join("/s?token=bob").await;
    elsewhere
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
}

#[tokio::test]
async fn a_reused_token_replaces_the_older_connection() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let mut other = join_chat(&server, "/r").await;
    let mut older = join_chat(&server, "/r?token=x").await;
    other.expect("guest2 joined.").await;
    let mut newer = server.join("/r?token=x").await;
    let (code, reason) = older.closed().await;
    assert_eq!(
        (code, reason.as_str()),
        (1008, "replaced by a newer connection")
    );
    newer
        .expect("Welcome, guest2. Commands: /nick NAME, /who.")
        .await;
    other.expect("guest2 left.").await;
    other.expect("guest2 joined.").await;
    // The older connection's end does not disconnect the client.
    drop(older);
    newer.send("still here").await;
    newer.expect("guest2: still here").await;
    other.expect("guest2: still here").await;
    assert_eq!(
        server.room("r").await.expect("the room is open")["clients"],
        2
    );
}

#[tokio::test]
async fn tokens_are_at_most_128_bytes() {
    let server = Server::bundled("echo-c", &[]);
    server.join(&format!("/r?token={}", "x".repeat(128))).await;
    let Err(Error::Http(response)) = server
        .try_join(&format!("/r?token={}", "x".repeat(129)))
        .await
    else {
        panic!("not rejected")
    };
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn rooms_are_listed_with_their_statistics() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let list = server.get("/rooms").await;
    assert!(
        list.head.contains("content-type: application/json"),
        "{}",
        list.head
    );
    let list: serde_json::Value = serde_json::from_str(&list.body).expect("JSON");
    let expected = serde_json::json!({ "module": "chat-rust-0.4.wasm", "abi": "0.4", "rooms": [], "failed": [], "takes_clients": true });
    assert_eq!(list, expected);

    let mut a = join_chat(&server, "/lobby").await;
    let mut b = join_chat(&server, "/lobby").await;
    a.expect("guest2 joined.").await;
    for text in ["one", "two", "three"] {
        a.send(text).await;
        a.expect(&format!("guest1: {text}")).await;
        b.expect(&format!("guest1: {text}")).await;
    }
    let room = server.room("lobby").await.expect("the room is open");
    assert_eq!(room["clients"], 2);
    assert_eq!(room["state"], "open");
    assert_eq!(room["messages_in"], 3);
    // A welcome and a "joined" per client, and three texts; a broadcast counts once.
    assert_eq!(room["messages_out"], 7);
    let memory = room["memory_bytes"].as_u64().expect("a number");
    assert!(memory > 0 && memory % 65_536 == 0, "{memory}");
    assert!(room["instance_bytes"].as_u64().expect("a number") > 1000);
    assert!(room["fuel_used"].as_u64().expect("a number") > 0);
    assert_eq!(room["hibernated_bytes"], 0);
    assert_eq!(room.as_object().expect("an object").len(), 12, "{room}");
}

#[tokio::test]
async fn the_page_is_at_the_root_with_a_policy() {
    let server = Server::bundled("echo-c", &[]);
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.head.contains("content-type: text/html"),
        "{}",
        page.head
    );
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none';"),
        "{}",
        page.head
    );
    assert!(page.head.contains("connect-src 'self'"), "{}", page.head);
    assert!(
        page.body
            .to_ascii_lowercase()
            .starts_with("<!doctype html>")
    );
    assert_eq!(server.get("/nothing").await.status, 404);
}

#[tokio::test]
async fn other_methods_are_rejected_with_those_that_are_allowed() {
    let server = Server::bundled("echo-c", &[]);
    for (path, allowed) in [
        ("/status", "get, head"),
        ("/rooms", "get, head"),
        ("/", "get, head"),
        ("/ws", "get"),
        ("/ws/room", "get"),
    ] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let head = server
                .request_head(request.as_bytes())
                .await
                .to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 405"), "{method} {path}: {head}");
            assert!(
                head.contains(&format!("\r\nallow: {allowed}\r\n")),
                "{method} {path}: {head}"
            );
        }
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get_without_the_body() {
    let server = Server::bundled("echo-c", &[]);
    for path in ["/status", "/rooms", "/"] {
        let get = server.get(path).await;
        let request =
            format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let response = server
            .request(request.as_bytes())
            .await
            .to_ascii_lowercase();
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body, "", "{path}");
        let without_date = |head: &str| -> Vec<String> {
            let lines = head.lines().filter(|line| !line.starts_with("date:"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(without_date(head), without_date(&get.head), "{path}");
        let length = format!("content-length: {}", get.body.len());
        assert!(head.contains(&length), "{path}: {head}");
    }
}

#[tokio::test]
async fn a_plain_request_to_ws_is_rejected() {
    let server = Server::bundled("echo-c", &[]);
    assert_eq!(server.get("/ws").await.status / 100, 4);
    assert_eq!(server.rooms().await.len(), 0);
}

#[tokio::test]
async fn a_folder_provides_module_and_static_files() {
    let folder = TempDir::new();
    folder.write("server.wasm", assemble(&support::echo()));
    folder.write("static/index.html", "the folder's page");
    let server = Server::start(&folder.0, &[]);
    assert_eq!(server.get("/").await.body, "the folder's page");
    let mut client = server.join("").await;
    client.send("hello").await;
    client.expect("hello").await;
}

#[tokio::test]
async fn a_folder_without_static_files_gets_the_page() {
    let folder = TempDir::new();
    let wasm = std::fs::read(bundled_path("echo-c")).expect("cannot read it");
    folder.write("server.wasm", wasm);
    let server = Server::start(&folder.0, &[]);
    assert!(
        server
            .get("/")
            .await
            .head
            .contains("content-security-policy")
    );
}

#[tokio::test]
async fn a_module_in_the_text_format_is_served() {
    let wat = super::repository().join("examples/rooms/wat/echo.wat");
    let server = Server::start(&wat, &[]);
    let mut client = server.join("").await;
    client.send("hello").await;
    client.expect("hello").await;
}

#[test]
fn startup_errors_are_printed() {
    let folder = TempDir::new();
    let no_room = folder.write("no-room.wat", "(module)");
    let no_wasm = folder.write("no-wasm.wasm", "hello");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has one").port().to_string();
    let echo = bundled_path("echo-c");
    let file = echo.to_str().expect("UTF-8");
    let cases: &[(&[&str], &str)] = &[
        (
            &[no_room.to_str().expect("UTF-8")],
            "the module is not a room",
        ),
        (&[no_wasm.to_str().expect("UTF-8")], "no-wasm.wasm"),
        (
            &["/nowhere/at-all.wasm"],
            "cannot read /nowhere/at-all.wasm",
        ),
        (&[folder.0.to_str().expect("UTF-8")], "server.wasm"),
        (
            &[file],
            &format!("cannot listen on the address 127.0.0.1:{port}: "),
        ),
        (
            &["--host", "not a name", file],
            &format!("cannot listen on the address not a name:{port}: "),
        ),
        (
            &["--allow-origin", "example.org", file],
            "\"example.org\" is no origin, which is scheme://host or scheme://host:port, such as \
             https://example.org",
        ),
        (
            &["--allow-origin", "http://example.org:3000/game?x", file],
            "such as http://example.org:3000",
        ),
        (
            &["--allow-origin", "wss://example.org", file],
            "such as https://example.org",
        ),
        (
            &["--allow-origin", "https://exämple.org", file],
            "with the host in its xn-- form",
        ),
        (
            &["--allow-origin", "https://example.org:99999", file],
            "is no origin",
        ),
        (
            &["--subprotocol", "chat v1", file],
            "\"chat v1\" cannot be a subprotocol",
        ),
        (
            &["--static", "/nowhere/at-all", file],
            "cannot serve the folder \"/nowhere/at-all\": ",
        ),
        (&["--static", file, file], "cannot serve the folder"),
        (
            &["-i", "5", "-t", "5", file],
            "the heartbeat timeout (5s) must be longer than the heartbeat interval (5s)",
        ),
        (&["--workers", "0", file], "`workers` is 0"),
        (&["--max-rooms", "0", file], "`max_rooms` is 0"),
        (&["--max-connections", "0", file], "`max_connections` is 0"),
        (
            &["--max-connections-per-address", "0", file],
            "`max_connections_per_address` is 0",
        ),
        (
            &["--max-queued-messages", "0", file],
            "`max_queued_messages` is 0",
        ),
        (
            &["--max-queued-bytes", "0", file],
            "`max_queued_bytes` is 0",
        ),
        (
            &["--max-total-queued-bytes", "0", file],
            "`max_total_queued_bytes` is 0",
        ),
    ];
    for (args, expected) in cases {
        // If it did not fail for another reason, it would for this one.
        let output = super::tool(&[&["serve", "--port", &port], *args].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(*expected), "{expected:?} is not in: {error}");
    }
}
