//! The addresses that the server listens on.

use super::{Server, bundled_path, eventually};
use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs},
    process::{Command, Stdio},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Starts a server with these hosts, which must print one URL for each of the addresses, and
/// respond there.
async fn expect_addresses(hosts: &[&str], addresses: &[IpAddr]) {
    let hosts = hosts.iter().flat_map(|host| ["--host", host]);
    let mut process = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"))
        .arg("serve")
        .arg(bundled_path("echo-c"))
        .args(["--port", "0", "--workers", "1"])
        .args(hosts)
        .stdout(Stdio::piped())
        .spawn()
        .expect("cannot run the tool");
    let stdout = BufReader::new(process.stdout.take().expect("it is piped"));
    // Killed on drop.
    let mut server = Server {
        process,
        address: String::new(),
        admin: String::new(),
        has_admin: false,
        log: Default::default(),
        folder: None,
    };
    let mut lines = stdout.lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("echo-c.wasm is served at"));
    let mut port = None;
    for address in addresses {
        let line = lines.next().expect("a URL");
        let url = line.strip_prefix("http://").expect("a URL");
        let url: SocketAddr = url.parse().expect("an address");
        assert_eq!(url.ip(), *address);
        assert_eq!(url.port(), *port.get_or_insert(url.port()), "{line}");
        let status = async {
            let mut stream = TcpStream::connect(url).await?;
            let request = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await?;
            let mut response = String::new();
            stream.read_to_string(&mut response).await?;
            std::io::Result::Ok(response)
        };
        let response = eventually("a response", status).await.expect("no response");
        assert!(response.starts_with("HTTP/1.1 200"), "{line}: {response}");
    }
    server.signal("-TERM");
    assert_eq!(server.exited().await.code(), Some(0));
    assert_eq!(lines.next(), None);
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[tokio::test]
async fn all_addresses_of_a_name_are_listened_on() {
    let mut addresses = Vec::new();
    for address in "localhost:0".to_socket_addrs().expect("it is known") {
        if !addresses.contains(&address.ip()) && TcpListener::bind(address).is_ok() {
            addresses.push(address.ip());
        }
    }
    expect_addresses(&["localhost"], &addresses).await;
}

#[tokio::test]
async fn several_hosts_share_a_port() {
    let ipv4 = IpAddr::from([127, 0, 0, 1]);
    // Each address once.
    expect_addresses(&["127.0.0.1", "127.0.0.1"], &[ipv4]).await;
    if !has_ipv6() {
        return;
    }
    let ipv6: IpAddr = "::1".parse().expect("an address");
    expect_addresses(&["127.0.0.1", "[::1]", "::1"], &[ipv4, ipv6]).await;
    let all = ["0.0.0.0", "::"].map(|address| address.parse().expect("an address"));
    expect_addresses(&["0.0.0.0", "::"], &all).await;
}

/// Only if all addresses are local may a page's name be that of an attacker alone.
#[tokio::test]
async fn a_server_with_a_public_address_trusts_the_host_header() {
    if !has_ipv6() {
        return;
    }
    let request = b"GET /status HTTP/1.1\r\nHost: game.example\r\n\r\n";
    for (hosts, status) in [
        (["--host", "127.0.0.1", "--host", "::1"], "403"),
        (["--host", "127.0.0.1", "--host", "::"], "200"),
    ] {
        let server = Server::bundled("echo-c", &hosts);
        let head = server.request_head(request).await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{hosts:?}");
    }
}
