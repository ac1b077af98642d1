//! The WebSocket handshake (RFC 6455, section 4).

use super::{FINAL, Server, TEXT, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest};

const HEADERS: [&str; 5] = [
    "Host: localhost",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    // The example of the RFC.
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// A handshake in which lines of these names are replaced by others.
fn handshake(without: &str, lines: &[&str]) -> String {
    let kept = HEADERS
        .iter()
        .filter(|line| without.is_empty() || !line.starts_with(without));
    let lines: Vec<_> = kept.chain(lines).copied().collect();
    format!("GET /ws HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"))
}

/// The status of the response, and its head in lower case.
async fn respond(server: &Server, request: &str) -> (u16, String) {
    let head = server.request_head(request.as_bytes()).await;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_ascii_lowercase())
}

#[tokio::test]
async fn a_handshake_must_be_one() {
    let server = Server::bundled("echo-c", &[]);
    let cases: [(&str, &[&str], u16); 22] = [
        ("", &[], 101),
        ("Connection", &["Connection: keep-alive, Upgrade"], 101),
        (
            "Connection",
            &["Connection: keep-alive", "Connection: upgrade"],
            101,
        ),
        ("Upgrade", &["Upgrade: h2c, WebSocket"], 101),
        ("", &["Content-Length: 0"], 101),
        ("Connection", &[], 426),
        ("Connection", &["Connection: keep-alive"], 426),
        ("Upgrade", &[], 426),
        ("Upgrade", &["Upgrade: websocket2"], 426),
        ("Sec-WebSocket-Version", &[], 426),
        ("Sec-WebSocket-Version", &["Sec-WebSocket-Version: 8"], 426),
        (
            "Sec-WebSocket-Version",
            &["Sec-WebSocket-Version: 13, 8"],
            426,
        ),
        ("", &["Sec-WebSocket-Version: 13"], 426),
        ("Sec-WebSocket-Key", &[], 400),
        ("Sec-WebSocket-Key", &["Sec-WebSocket-Key:"], 400),
        (
            "Sec-WebSocket-Key",
            &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"],
            400,
        ),
        (
            "Sec-WebSocket-Key",
            &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ="],
            400,
        ),
        (
            "Sec-WebSocket-Key",
            &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!=="],
            400,
        ),
        ("", &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], 400),
        ("", &["Content-Length: 2", "", "hi"], 400),
        ("", &["Transfer-Encoding: chunked"], 400),
        ("Host", &[], 400),
    ];
    for (without, lines, expected) in cases {
        let request = handshake(without, lines);
        let (status, head) = respond(&server, &request).await;
        assert_eq!(status, expected, "{request}");
        if status == 101 {
            assert!(
                head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
                "{head}"
            );
            assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
            assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
            assert!(!head.contains("sec-websocket-protocol"), "{head}");
        } else if without != "Host" {
            assert!(head.contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
        }
    }
    let old = handshake("", &[]).replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(respond(&server, &old).await.0, 426);
    assert_eq!(
        respond(&server, &handshake("", &[]).replace("GET", "POST"))
            .await
            .0,
        405
    );
    assert_eq!(
        respond(&server, &handshake("", &[]).replace("GET", "HEAD"))
            .await
            .0,
        405
    );
}

/// Of each response to these offers, the chosen subprotocol.
async fn expect_chosen(server: &Server, cases: &[(&[&str], Option<&str>)]) {
    for (offers, expected) in cases {
        let (status, head) = respond(server, &handshake("", offers)).await;
        assert_eq!(status, 101, "{offers:?}");
        let mut lines = head.lines();
        let chosen = lines.find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(chosen, *expected, "{offers:?}");
        assert!(
            lines.all(|line| !line.starts_with("sec-websocket-protocol")),
            "{head}"
        );
    }
}

/// A browser closes a connection whose offers get no answer.
#[tokio::test]
async fn the_first_subprotocol_that_is_offered_is_chosen() {
    let server = Server::bundled("echo-c", &[]);
    let cases: [(&[&str], _); 5] = [
        (&["Sec-WebSocket-Protocol: chat"], Some("chat")),
        (&["Sec-WebSocket-Protocol: b,a"], Some("b")),
        (
            &["Sec-WebSocket-Protocol: b", "Sec-WebSocket-Protocol: a"],
            Some("b"),
        ),
        (&["Sec-WebSocket-Protocol: ,\t, a.1 ,"], Some("a.1")),
        (
            &["Sec-WebSocket-Protocol: !#$%&'*+-.^_`|~0"],
            Some("!#$%&'*+-.^_`|~0"),
        ),
    ];
    expect_chosen(&server, &cases).await;
    for offers in [
        "Sec-WebSocket-Protocol:",
        "Sec-WebSocket-Protocol: ,",
        "Sec-WebSocket-Protocol: a b",
        "Sec-WebSocket-Protocol: a, b/c",
        "Sec-WebSocket-Protocol: \"a\"",
        "Sec-WebSocket-Protocol: a;q=1",
        "Sec-WebSocket-Protocol: ž",
    ] {
        assert_eq!(
            respond(&server, &handshake("", &[offers])).await.0,
            400,
            "{offers}"
        );
    }
}

#[tokio::test]
async fn only_listed_subprotocols_are_chosen() {
    let args = ["--subprotocol", "chat.v2", "--subprotocol", "chat.v1"];
    let server = Server::bundled("echo-c", &args);
    let cases: [(&[&str], _); 5] = [
        (
            &["Sec-WebSocket-Protocol: chat.v1, chat.v2"],
            Some("chat.v1"),
        ),
        (
            &[
                "Sec-WebSocket-Protocol: x",
                "Sec-WebSocket-Protocol: y, chat.v2",
            ],
            Some("chat.v2"),
        ),
        (&["Sec-WebSocket-Protocol: x"], None),
        // They differ by case.
        (&["Sec-WebSocket-Protocol: Chat.v1"], None),
        (&[], None),
    ];
    expect_chosen(&server, &cases).await;
    // This client demands an answer, as browsers do.
    let mut request = format!("ws://{}/ws", server.address)
        .into_client_request()
        .expect("a request");
    let offers = "chat.v1".parse().expect("a header");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offers);
    let connected = eventually("the handshake", connect_async(request)).await;
    let (_, response) = connected.expect("the handshake succeeds");
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat.v1");
}

#[tokio::test]
async fn frames_may_follow_the_handshake_at_once() {
    let server = Server::bundled("echo-c", &[]);
    let mut stream = TcpStream::connect(&server.address)
        .await
        .expect("the server listens");
    let mut bytes = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        .repeat(20)
        .into_bytes();
    bytes.extend(handshake("", &[]).bytes());
    // Masked with zeros.
    bytes.extend([FINAL | TEXT, 0x80 | 5, 0, 0, 0, 0]);
    bytes.extend(b"hello");
    stream.write_all(&bytes).await.expect("cannot write");
    let mut received = Vec::new();
    eventually("the echo", async {
        while !received.ends_with(&[&[FINAL | TEXT, 5], &b"hello"[..]].concat()) {
            let read = stream.read_buf(&mut received).await.expect("no response");
            assert!(read > 0, "the server has closed the connection");
        }
    })
    .await;
    let text = String::from_utf8_lossy(&received);
    assert_eq!(text.matches("HTTP/1.1 200").count(), 20);
    assert_eq!(text.matches("HTTP/1.1 101").count(), 1);
}
