//! What each URL answers.

use super::{Client, Folder, Server, bundled_path};
use crate::support::{self, assemble};
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::test]
async fn status_is_ok() {
    let server = Server::bundled("echo-c", &[]);
    let status = server.get("/status").await;
    assert_eq!((status.status, status.body.as_str()), (200, "ok"));
}

#[tokio::test]
async fn text_and_bytes_come_back_as_what_they_were() {
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
        client.say(message.clone()).await;
        assert_eq!(client.hear().await, message);
    }
}

/// Says in which room it is: the chat room tells all who are there.
async fn says(server: &Server, path: &str) -> Client {
    let mut client = server.join(path).await;
    assert!(client.hear_text().await.starts_with("Welcome, guest"));
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
        clients.push(says(&server, path).await);
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
    let mut first = says(&server, "").await;
    let _second = says(&server, "/").await;
    first.expect("guest2 joined.").await;
}

#[tokio::test]
async fn a_room_is_named_in_utf_8() {
    let server = Server::bundled("echo-c", &[]);
    let Err(Error::Http(response)) = server.try_join("/%FF").await else {
        panic!("not refused")
    };
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn a_token_gives_back_the_id() {
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

    // Whoever comes without it, or with an empty one, is somebody else.
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
    // In another room, the token means nothing yet.
    let mut elsewhere = server.join("/s?token=bob").await;
    elsewhere
        .expect("Welcome, guest1. Commands: /nick NAME, /who.")
        .await;
}

#[tokio::test]
async fn a_token_that_comes_again_replaces_the_older_connection() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let mut other = says(&server, "/r").await;
    let mut older = says(&server, "/r?token=x").await;
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
    // The end of the older connection is not the end of the newer one.
    drop(older);
    newer.say("still here").await;
    newer.expect("guest2: still here").await;
    other.expect("guest2: still here").await;
    assert_eq!(server.room("r").await.expect("it is open")["clients"], 2);
}

#[tokio::test]
async fn a_token_has_128_bytes_at_most() {
    let server = Server::bundled("echo-c", &[]);
    server.join(&format!("/r?token={}", "x".repeat(128))).await;
    let Err(Error::Http(response)) = server
        .try_join(&format!("/r?token={}", "x".repeat(129)))
        .await
    else {
        panic!("not refused")
    };
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn rooms_are_listed_with_their_figures() {
    let server = Server::bundled("chat-rust-0.4", &[]);
    let list = server.get("/rooms").await;
    assert!(
        list.head.contains("content-type: application/json"),
        "{}",
        list.head
    );
    let list: serde_json::Value = serde_json::from_str(&list.body).expect("JSON");
    let expected = serde_json::json!({ "module": "chat-rust-0.4.wasm", "abi": "0.4", "rooms": [] });
    assert_eq!(list, expected);

    let mut a = says(&server, "/lobby").await;
    let mut b = says(&server, "/lobby").await;
    a.expect("guest2 joined.").await;
    for text in ["one", "two", "three"] {
        a.say(text).await;
        a.expect(&format!("guest1: {text}")).await;
        b.expect(&format!("guest1: {text}")).await;
    }
    let room = server.room("lobby").await.expect("it is open");
    assert_eq!(room["clients"], 2);
    assert_eq!(room["state"], "open");
    assert_eq!(room["messages_in"], 3);
    // A welcome and a "joined" for each client, and the three texts; one to many counts once.
    assert_eq!(room["messages_out"], 7);
    let memory = room["memory_bytes"].as_u64().expect("a number");
    assert!(memory > 0 && memory % 65_536 == 0, "{memory}");
    assert!(room["fuel_used"].as_u64().expect("a number") > 0);
    assert_eq!(room.as_object().expect("an object").len(), 10, "{room}");
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
async fn a_plain_request_to_ws_is_refused() {
    let server = Server::bundled("echo-c", &[]);
    assert_eq!(server.get("/ws").await.status / 100, 4);
    assert_eq!(server.rooms().await.len(), 0);
}

#[tokio::test]
async fn static_files_take_the_place_of_the_page() {
    let folder = Folder::new();
    folder.write("site/index.html", "my page");
    folder.write("site/js/a b.js", "my script");
    folder.write("secret", "my secret");
    let site = folder.0.join("site");
    let server = Server::bundled("echo-c", &["--static", site.to_str().expect("UTF-8")]);
    assert_eq!(server.get("/").await.body, "my page");
    assert_eq!(server.get("/js/a%20b.js").await.body, "my script");
    assert_eq!(server.get("/nothing").await.status, 404);
    for outside in ["/../secret", "/..%2Fsecret", "/%2e%2e/secret", "//secret"] {
        let answer = server.get(outside).await;
        assert_eq!(answer.status, 404, "{outside}");
        assert!(!answer.body.contains("my secret"), "{outside}");
    }
    // The server's own URLs go first.
    assert_eq!(server.get("/status").await.body, "ok");
    let mut client = server.join("/r").await;
    client.say("hello").await;
    client.expect("hello").await;
}

#[tokio::test]
async fn a_folder_has_its_module_and_its_files() {
    let folder = Folder::new();
    folder.write("server.wasm", assemble(&support::echo()));
    folder.write("static/index.html", "the folder's page");
    let server = Server::start(&folder.0, &[]);
    assert_eq!(server.get("/").await.body, "the folder's page");
    let mut client = server.join("").await;
    client.say("hello").await;
    client.expect("hello").await;
}

#[tokio::test]
async fn a_folder_without_files_has_the_page() {
    let folder = Folder::new();
    let wasm = std::fs::read(bundled_path("echo-c")).expect("it is there");
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
    client.say("hello").await;
    client.expect("hello").await;
}

#[test]
fn what_cannot_be_served_is_said() {
    let folder = Folder::new();
    let no_room = folder.write("no-room.wat", "(module)");
    let no_wasm = folder.write("no-wasm.wasm", "hello");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has one").port().to_string();
    let echo = bundled_path("echo-c");
    let cases: [(&[&str], &str); 5] = [
        (
            &["-p", "0", no_room.to_str().expect("UTF-8")],
            "the module cannot be a room",
        ),
        (
            &["-p", "0", no_wasm.to_str().expect("UTF-8")],
            "no-wasm.wasm",
        ),
        (
            &["-p", "0", "/nowhere/at-all.wasm"],
            "cannot read /nowhere/at-all.wasm",
        ),
        (
            &["-p", "0", folder.0.to_str().expect("UTF-8")],
            "server.wasm",
        ),
        (
            &["-p", &port, echo.to_str().expect("UTF-8")],
            "the address cannot be listened on",
        ),
    ];
    for (args, said) in cases {
        let output = super::tool(&[&["serve"], args].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(said), "{said:?} is not in: {error}");
    }
}
