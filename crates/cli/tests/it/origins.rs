//! The checks of `Host` and `Origin`.

use super::Server;
use std::time::Instant;

/// The status of the response to a request with these headers.
async fn status(server: &Server, request: &str, host: &str, more: &str) -> u16 {
    let text = format!("{request} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    let response = server.request_head(text.as_bytes()).await;
    response
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{response}"))
}

/// The status of an upgrade; origins are separated by spaces.
async fn upgrade(server: &Server, host: &str, origins: &str) -> u16 {
    let origins: String = origins
        .split_whitespace()
        .map(|origin| format!("Origin: {origin}\r\n"))
        .collect();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    status(server, "GET /ws", host, &format!("{upgrade}{origins}")).await
}

#[tokio::test]
async fn only_same_origin_pages_may_connect() {
    let server = Server::bundled("echo-c", &[]);
    let own = server.address.as_str();
    let port = own.rsplit(':').next().expect("a port");
    let local = format!("localhost:{port}");
    let rebound = format!("evil.example:{port}");
    let cases = [
        (own, String::new(), 101),
        (own, format!("http://{own}"), 101),
        (&local, format!("http://{local}"), 101),
        (&local, format!("http://{own}"), 403),
        (own, "http://evil.example".to_owned(), 403),
        (own, format!("http://{rebound}"), 403),
        (own, format!("http://{own}.evil.example"), 403),
        (own, "http://127.0.0.1".to_owned(), 403),
        // The default port of a scheme may be left out.
        ("localhost:80", "http://localhost".to_owned(), 101),
        ("localhost", "http://localhost:80".to_owned(), 101),
        ("localhost:443", "https://localhost".to_owned(), 101),
        ("localhost", "https://localhost".to_owned(), 101),
        ("LOCALHOST", "http://localhost".to_owned(), 101),
        ("localhost:443", "http://localhost".to_owned(), 403),
        ("localhost:80", "https://localhost".to_owned(), 403),
        // The pages of apps, which are no pages of this server.
        ("localhost", "capacitor://localhost".to_owned(), 403),
        (own, "null".to_owned(), 403),
        (own, format!("http://{own} http://evil.example"), 403),
        // DNS rebinding: a name that points here is not the server's own.
        (&rebound, format!("http://{rebound}"), 403),
        (
            "localhost.evil.example",
            "http://localhost.evil.example".to_owned(),
            403,
        ),
    ];
    for (host, origin, expected) in cases {
        assert_eq!(
            upgrade(&server, host, &origin).await,
            expected,
            "{origin:?} at {host}"
        );
    }
    // Those that were accepted reach their worker after the response.
    server
        .until_room("", "the room is open", |room| room.is_some())
        .await;
    assert_eq!(
        server.rooms().await.len(),
        1,
        "a rejected request opens no room"
    );
}

/// The status of a `GET` of each of the URLs.
async fn statuses(server: &Server, host: &str) -> [u16; 3] {
    [
        status(server, "GET /status", host, "").await,
        status(server, "HEAD /", host, "").await,
        status(server, "GET /", host, "").await,
    ]
}

/// DNS rebinding: the page of an attacker's name that resolves to a local address counts as one of
/// the same origin, so it could read everything.
#[tokio::test]
async fn a_local_server_responds_to_local_names_alone() {
    let server = Server::bundled("echo-c", &["--allow-origin", "https://game.example:8443"]);
    let own = server.address.as_str();
    let local = [
        own,
        "localhost",
        "localhost.",
        "app.localhost:1",
        "127.0.0.1",
        "[::1]:8080",
    ];
    for host in local {
        assert_eq!(statuses(&server, host).await, [200; 3], "{host}");
    }
    let foreign = [
        "evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1.evil.example",
    ];
    for host in foreign {
        assert_eq!(statuses(&server, host).await, [403; 3], "{host}");
        assert_eq!(upgrade(&server, host, "").await, 403, "{host}");
    }
    // A proxy may pass on any port, or none.
    for host in ["game.example", "game.example:443", "GAME.example:8443"] {
        assert_eq!(statuses(&server, host).await, [200; 3], "{host}");
    }
    let server = Server::bundled("echo-c", &["--allow-origin", "*"]);
    assert_eq!(statuses(&server, "any.example").await, [200; 3]);
}

/// RFC 9112, section 3.2.
#[tokio::test]
async fn a_request_names_one_host() {
    let server = Server::bundled("echo-c", &[]);
    let cases = [
        ("GET /status HTTP/1.1\r\n\r\n", 400),
        (
            "GET /status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
            400,
        ),
        ("GET /status HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET /status HTTP/1.1\r\nHost: me@localhost\r\n\r\n", 400),
        ("GET /status HTTP/1.1\r\nHost: localhost:99999\r\n\r\n", 400),
        ("GET /status HTTP/1.1\r\nHost: localhost:\r\n\r\n", 200),
        ("GET /status HTTP/1.0\r\n\r\n", 200),
        // A URL in the request line overrides the header.
        (
            "GET http://localhost/status HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            200,
        ),
        (
            "GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
            403,
        ),
    ];
    for (request, expected) in cases {
        let head = server.request_head(request.as_bytes()).await;
        assert_eq!(
            head.split(' ').nth(1),
            Some(&*expected.to_string()),
            "{request}"
        );
    }
}

#[tokio::test]
async fn a_cross_origin_page_can_neither_write_nor_read() {
    let server = Server::bundled("echo-c", &[]);
    let own = server.address.as_str();
    let foreign = "Origin: http://evil.example\r\n";
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(
            status(&server, &format!("{method} /rooms"), own, foreign).await,
            403,
            "{method}"
        );
        assert_eq!(
            status(&server, &format!("{method} /rooms"), own, "").await,
            405,
            "{method}"
        );
    }
    // Browsers keep the response from the page unless this header allows it.
    let request = format!("GET /rooms HTTP/1.1\r\nHost: {own}\r\n{foreign}\r\n");
    let head = server
        .request_head(request.as_bytes())
        .await
        .to_ascii_lowercase();
    assert!(!head.contains("access-control-allow-origin"), "{head}");
}

#[tokio::test]
async fn listed_origins_may_connect() {
    let args = [
        "--allow-origin",
        "https://game.example",
        "--allow-origin",
        "http://dev.example:3000/",
        "--allow-origin",
        "https://Default.example:443",
        "--allow-origin",
        "capacitor://localhost",
    ];
    let server = Server::bundled("echo-c", &args);
    let own = server.address.as_str();
    let cases = [
        ("https://game.example", 101),
        ("http://dev.example:3000", 101),
        ("https://game.example:443", 101),
        ("https://default.example", 101),
        ("capacitor://localhost", 101),
        ("ionic://localhost", 403),
        ("http://game.example", 403),
        ("https://game.example:8443", 403),
        ("https://game.example.evil.example", 403),
        ("null", 403),
    ];
    for (origin, expected) in cases {
        assert_eq!(upgrade(&server, own, origin).await, expected, "{origin}");
    }
    let server = Server::bundled("echo-c", &["--allow-origin", "*"]);
    for origin in ["http://evil.example", "null"] {
        assert_eq!(
            upgrade(&server, &server.address, origin).await,
            101,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn log_lines_of_rejections_are_rate_limited() {
    let server = Server::bundled("echo-c", &["--connect-rate", "1", "--connect-burst", "200"]);
    let start = Instant::now();
    for _ in 0..150 {
        assert_eq!(
            upgrade(&server, &server.address, "http://evil.example").await,
            403
        );
    }
    let mut rejected = 0;
    while rejected < 150 {
        rejected += u32::from(server.get("/status").await.status == 429);
    }
    for line in ["rejected a page", "rejected a connection"] {
        server.until_logged(line).await;
        let count = server
            .log
            .lock()
            .expect("not poisoned")
            .matches(line)
            .count();
        // A burst of ten, then one a second.
        let limit = 11 + start.elapsed().as_secs() as usize;
        assert!(count <= limit, "{count} lines contain {line:?}");
    }
}

#[tokio::test]
async fn a_public_server_trusts_the_host_header() {
    let server = Server::bundled("echo-c", &["--host", "0.0.0.0"]);
    assert_eq!(
        upgrade(&server, "game.example", "https://game.example").await,
        101
    );
    assert_eq!(
        upgrade(&server, "game.example", "https://evil.example").await,
        403
    );
    assert_eq!(statuses(&server, "game.example").await, [200; 3]);
}
