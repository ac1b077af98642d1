//! Trusted proxies: whose connection it is, as far as limits go.

use super::{Server, eventually, read_head, tool};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The status of a handshake with these headers, and the connection, which stays.
async fn handshake(server: &Server, before: &[u8], headers: &str) -> (String, TcpStream) {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
    );
    let mut stream = TcpStream::connect(&server.address)
        .await
        .expect("it listens");
    let head = async {
        stream.write_all(before).await?;
        stream.write_all(request.as_bytes()).await?;
        read_head(&mut stream).await
    };
    let head = eventually("a response", head).await.expect("a response");
    (head.split(' ').nth(1).expect("a status").into(), stream)
}

const LIMITS: [&str; 4] = [
    "--max-connections-per-address",
    "2",
    "--trusted-proxy",
    "127.0.0.1",
];

#[tokio::test]
async fn limits_count_the_clients_of_a_proxy() {
    let server = Server::bundled("echo-c", &LIMITS);
    let from = |client: &str| format!("X-Forwarded-For: 198.51.100.1, {client}\r\n");
    let mut open = Vec::new();
    for client in ["203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.2"] {
        let (status, stream) = handshake(&server, b"", &from(client)).await;
        assert_eq!(status, "101", "{client}");
        open.push(stream);
    }
    // What is before the last address, the client has made up.
    for headers in [
        from("203.0.113.1"),
        "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 203.0.113.2\r\n".into(),
        "X-Forwarded-For: 203.0.113.1, 127.0.0.1\r\n".into(),
        "Forwarded: for=203.0.113.7\r\nX-Forwarded-For: 203.0.113.1:4711\r\n".into(),
    ] {
        let (status, _) = handshake(&server, b"", &headers).await;
        assert_eq!(status, "429", "{headers}");
    }
    server
        .until_logged("rejected a client, 203.0.113.1, of the proxy 127.0.0.1:")
        .await;
    // One that leaves makes space.
    open.remove(0);
    let mut status = String::new();
    while status != "101" {
        let (next, _stream) = handshake(&server, b"", &from("203.0.113.1")).await;
        status = next;
    }
    drop(open);
}

#[tokio::test]
async fn only_trusted_proxies_are_believed() {
    let args = [
        "--max-connections-per-address",
        "2",
        "--trusted-proxy",
        "10.0.0.0/8",
    ];
    let server = Server::bundled("echo-c", &args);
    let mut open = Vec::new();
    for client in ["203.0.113.1", "203.0.113.2"] {
        let headers = format!("X-Forwarded-For: {client}\r\n");
        let (status, stream) = handshake(&server, b"", &headers).await;
        assert_eq!(status, "101");
        open.push(stream);
    }
    let (status, _) = handshake(&server, b"", "X-Forwarded-For: 203.0.113.3\r\n").await;
    assert_eq!(status, "429");
}

#[tokio::test]
async fn a_proxy_may_speak_the_proxy_protocol() {
    let args = [
        &LIMITS[..],
        &[
            "--proxy-header",
            "proxy-protocol",
            "--handshake-timeout",
            "1",
        ],
    ];
    let server = Server::bundled("echo-c", &args.concat());
    let v1 = |client: &str| format!("PROXY TCP4 {client} 192.0.2.1 4711 443\r\n").into_bytes();
    // A header of version 2, with something behind the addresses: 12 bytes of addresses and ports, and a
    // value of type 0x20 with 1 byte.
    let v2 = |client: [u8; 4]| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10".to_vec();
        header.extend(client);
        header.extend([192, 0, 2, 1, 0x12, 0x67, 0x01, 0xbb, 0x20, 0, 1, 7]);
        header
    };
    let mut open = Vec::new();
    for header in [
        v1("203.0.113.1"),
        v2([203, 0, 113, 1]),
        v1("203.0.113.2"),
        // What a client sends behind the proxy's header counts for nothing.
        v2([203, 0, 113, 2]),
    ] {
        let forged = "X-Forwarded-For: 203.0.113.9\r\n";
        let (status, stream) = handshake(&server, &header, forged).await;
        assert_eq!(status, "101");
        open.push(stream);
    }
    for header in [v1("203.0.113.1"), v2([203, 0, 113, 2])] {
        let (status, _) = handshake(&server, &header, "").await;
        assert_eq!(status, "429");
    }
    // The proxy's own connections: a check of its health.
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
    ] {
        let (status, _) = handshake(&server, header, "").await;
        assert_eq!(status, "101");
    }
    for bad in [
        &b"GET /status HTTP/1.1\r\n\r\n"[..],
        b"PROXY TCP4 203.0.113.300 192.0.2.1 1 2\r\n",
        b"PROXY ",
        &[b'x'; 200],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x02ab",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00",
        b"",
    ] {
        let mut stream = TcpStream::connect(&server.address)
            .await
            .expect("it listens");
        let closed = async {
            stream.write_all(bad).await?;
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await.map(|_| response)
        };
        // It may be a reset.
        let response = eventually("it is closed", closed).await.unwrap_or_default();
        assert!(response.is_empty(), "{bad:?}: {response:?}");
    }
}

#[test]
fn what_is_no_proxy_is_refused() {
    let module = super::bundled_path("echo-c");
    let module = module.to_str().expect("a path");
    for proxy in ["10.0.0.0/33", "proxy.example", "", "10.0.0.1:80", "*"] {
        let refused = tool(&["serve", module, "--port", "0", "--trusted-proxy", proxy]);
        assert!(!refused.status.success(), "{proxy}");
        let error = String::from_utf8(refused.stderr).expect("text");
        assert!(error.contains("is no address of a proxy"), "{error}");
    }
}

#[tokio::test]
async fn a_header_of_the_proxy_protocol_that_never_ends_does_not_delay_a_stop() {
    // Longer than a test waits.
    let args = [
        "--trusted-proxy",
        "127.0.0.1",
        "--proxy-header",
        "proxy-protocol",
        "--handshake-timeout",
        "3600",
    ];
    let mut server = Server::bundled("echo-c", &args);
    let mut slow = TcpStream::connect(&server.address)
        .await
        .expect("it listens");
    slow.write_all(b"PROXY TCP4").await.expect("it is sent");
    // The server has accepted the one before, too.
    let (status, _stream) = handshake(&server, b"PROXY UNKNOWN\r\n", "").await;
    assert_eq!(status, "101");
    server.signal("-TERM");
    assert!(server.exited().await.success());
}
