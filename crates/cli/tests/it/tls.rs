//! TLS.

use super::{Server, TempDir, bundled_path, eventually, frame_header, tool};
use futures_util::{SinkExt, StreamExt};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// A server's certificate, in files.
struct Certificate {
    folder: TempDir,
    made: CertifiedKey<KeyPair>,
}

impl Certificate {
    fn new() -> Self {
        let mut certificate = Self {
            folder: TempDir::new(),
            made: make(),
        };
        certificate.write();
        certificate
    }

    fn write(&mut self) {
        self.folder.write("cert.pem", self.made.cert.pem());
        self.folder
            .write("key.pem", self.made.signing_key.serialize_pem());
    }

    fn args(&self) -> Vec<String> {
        let file = |name: &str| self.folder.0.join(name).display().to_string();
        [
            "--tls-cert",
            &file("cert.pem"),
            "--tls-key",
            &file("key.pem"),
        ]
        .map(Into::into)
        .into()
    }

    fn serve(&self, module: &str, more: &[&str]) -> Server {
        let args = self.args();
        let args: Vec<&str> = args
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        Server::bundled(module, &args)
    }

    /// A connection of a client that trusts this certificate.
    async fn connect(
        &self,
        server: &Server,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.made.cert.der().clone())
            .expect("a certificate");
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("they are known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(&server.address).await?;
        let name = "localhost".try_into().expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// Such a client in a room.
    async fn join(
        &self,
        server: &Server,
        versions: &[&'static SupportedProtocolVersion],
    ) -> WebSocketStream<TlsStream<TcpStream>> {
        let stream = self.connect(server, versions).await.expect("a handshake");
        let joined = client_async("wss://localhost/ws/r", stream);
        let joined = eventually("the handshake", joined).await;
        joined.expect("it joins").0
    }
}

fn make() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate")
}

#[tokio::test]
async fn clients_speak_tls() {
    let certificate = Certificate::new();
    let server = certificate.serve("echo-c", &[]);
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let mut stream = certificate
            .connect(&server, versions)
            .await
            .expect("a handshake");
        let request = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("it is sent");
        let mut response = String::new();
        let read = eventually("a response", stream.read_to_string(&mut response)).await;
        // With the end of TLS.
        read.expect("a whole response");
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");

        let mut socket = certificate.join(&server, versions).await;
        // Many of TLS's records, small ones and empty ones.
        for length in [1, 0, 200, 70_000, 1 << 20] {
            let text = "x".repeat(length);
            socket
                .send(Message::text(&*text))
                .await
                .expect("it is sent");
            let echo = eventually("the echo", socket.next())
                .await
                .expect("open")
                .expect("open");
            assert_eq!(echo.into_text().expect("a text").as_str(), text);
        }
        socket.close(None).await.expect("it is sent");
        let last = eventually("the close", socket.next()).await;
        assert!(matches!(last, Some(Ok(Message::Close(_)))), "{last:?}");
    }
    // A client that speaks none is told nothing.
    let mut plain = TcpStream::connect(&server.address)
        .await
        .expect("it listens");
    plain
        .write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("it is sent");
    let mut response = Vec::new();
    let _ = eventually("the end", plain.read_to_end(&mut response)).await;
    assert!(!response.starts_with(b"HTTP"), "{response:?}");
}

#[tokio::test]
async fn a_slow_client_gets_everything() {
    const MESSAGES: usize = 200;
    let certificate = Certificate::new();
    let server = certificate.serve("echo-c", &[]);
    let socket = certificate.join(&server, &[&version::TLS13]).await;
    let (mut send, mut receive) = socket.split();
    // Far more than sockets buffer: the server stops reading until the replies are taken.
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let text = format!("{number} {}", "x".repeat(60_000));
            send.send(Message::text(text)).await.expect("it is sent");
        }
        send
    });
    for number in 0..MESSAGES {
        if number % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let echo = eventually("the echo", receive.next())
            .await
            .expect("open")
            .expect("open");
        let text = echo.into_text().expect("a text");
        assert_eq!(text.split(' ').next(), Some(&*number.to_string()));
        assert!(text.len() > 60_000);
    }
    drop(sending.await.expect("all was sent"));
}

#[tokio::test]
async fn what_tls_adds_counts_towards_the_rate_of_bytes() {
    let certificate = Certificate::new();
    let server = certificate.serve("echo-c", &["--byte-rate", "20000", "--byte-burst", "2000"]);
    let mut socket = certificate.join(&server, &[&version::TLS13]).await;
    let start = Instant::now();
    let text = vec![b'x'; 200];
    let frame = [&*frame_header(0x81, text.len()), &[0; 4], &text].concat();
    // A record for each byte, with a header of five bytes, the type, and a tag of 16; besides that it counts
    // for 256 bytes.
    for byte in frame {
        let stream = socket.get_mut();
        stream.write_all(&[byte]).await.expect("it is sent");
        stream.flush().await.expect("it is sent");
    }
    let echo = eventually("the echo", socket.next())
        .await
        .expect("open")
        .expect("open");
    assert_eq!(echo.into_data(), text);
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

/// The response to a request for the status; nothing if there is none.
async fn status(stream: std::io::Result<TlsStream<TcpStream>>) -> String {
    let mut response = Vec::new();
    if let Ok(mut stream) = stream {
        let request = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(request).await;
        let _ = eventually("a response", stream.read_to_end(&mut response)).await;
    }
    String::from_utf8(response).expect("text")
}

#[tokio::test]
async fn connections_that_are_rejected_are_told_why() {
    let certificate = Certificate::new();
    let server = certificate.serve("echo-c", &["--max-connections-per-address", "1"]);
    let _socket = certificate.join(&server, &[&version::TLS13]).await;
    for version in [&version::TLS12, &version::TLS13] {
        let rejected = status(certificate.connect(&server, &[version]).await).await;
        assert!(rejected.starts_with("HTTP/1.1 429"), "{rejected}");
        let reason = "your address has its maximum of 1 connections";
        assert!(rejected.contains(reason), "{rejected}");
    }
    // If there are many, with an alert, which costs next to nothing.
    const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
    let alerted = async {
        loop {
            let streams = (0..40).map(|_| TcpStream::connect(&server.address));
            let streams = futures_util::future::join_all(streams).await;
            let read = streams.into_iter().map(async |stream| {
                let (mut stream, mut bytes) = (stream.expect("it listens"), Vec::new());
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut bytes).await;
                bytes
            });
            let responses = futures_util::future::join_all(read).await;
            if responses.iter().any(|bytes| bytes == &ALERT) {
                return;
            }
        }
    };
    eventually("an alert", alerted).await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_response_is_given_up() {
    let certificate = Certificate::new();
    // Far more than sockets buffer.
    certificate.folder.write("files/large", vec![0; 32 << 20]);
    let files = certificate.folder.0.join("files");
    let files = files.to_str().expect("a path");
    let args = [
        "--static",
        files,
        "--max-connections",
        "1",
        "--heartbeat-interval",
        "1",
        "--heartbeat-timeout",
        "2",
    ];
    let server = certificate.serve("echo-c", &args);
    let connect = async || certificate.connect(&server, &[&version::TLS13]).await;
    let mut slow = connect().await.expect("a handshake");
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("it is sent");
    let mut first = [0];
    let read = eventually("a response", slow.read_exact(&mut first)).await;
    read.expect("it begins");
    let given_up = async {
        while !status(connect().await).await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    eventually("space for another client", given_up).await;
    drop(slow);
}

#[tokio::test]
async fn a_stopped_server_says_so_over_tls() {
    let certificate = Certificate::new();
    let mut server = certificate.serve("echo-c", &[]);
    let mut socket = certificate.join(&server, &[&version::TLS13]).await;
    socket.send(Message::text("x")).await.expect("it is sent");
    let _ = eventually("the echo", socket.next()).await;
    server.signal("-TERM");
    let closed = eventually("the close", socket.next())
        .await
        .expect("open")
        .expect("open");
    let Message::Close(Some(frame)) = closed else {
        panic!("{closed:?}");
    };
    assert_eq!(u16::from(frame.code), 1001);
    drop(socket);
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn a_new_certificate_is_taken_while_clients_stay() {
    let mut certificate = Certificate::new();
    let server = certificate.serve("echo-c", &[]);
    let mut socket = certificate.join(&server, &[&version::TLS13]).await;
    certificate.made = make();
    certificate.write();
    let renewed = async {
        while certificate
            .connect(&server, &[&version::TLS13])
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    eventually("the new certificate", renewed).await;
    socket
        .send(Message::text("still here"))
        .await
        .expect("it is sent");
    let echo = eventually("the echo", socket.next())
        .await
        .expect("open")
        .expect("open");
    assert_eq!(echo.into_text().expect("a text").as_str(), "still here");
}

#[test]
fn what_is_no_certificate_is_refused() {
    let certificate = Certificate::new();
    let module = bundled_path("echo-c");
    let module = module.to_str().expect("a path");
    let serve = |args: &[&str]| {
        let refused = tool(&[&["serve", module, "--port", "0"], args].concat());
        assert!(!refused.status.success(), "{args:?}");
        String::from_utf8(refused.stderr).expect("text")
    };
    let args = certificate.args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    certificate
        .folder
        .write("key.pem", make().signing_key.serialize_pem());
    assert!(serve(&args).contains("cannot use the certificate"));
    certificate.folder.write("key.pem", "no key");
    assert!(serve(&args).contains("cannot read the key"));
    certificate.folder.write("cert.pem", "");
    assert!(serve(&args).contains("cannot read the certificate"));
    assert!(serve(&args[..2]).contains("--tls-key"));
}
