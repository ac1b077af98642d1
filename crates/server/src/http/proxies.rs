//! Proxies that are trusted to say on whose behalf they connect.

use crate::config::{ProxyHeader, ServerConfig};
use core::time::Duration;
use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName},
};
use ipnet::IpNet;
use ppp::{HeaderResult, v1, v2};
use std::{
    borrow::Cow,
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// The trusted proxies.
#[derive(Clone, Debug)]
pub(super) struct Proxies {
    trusted: Vec<IpNet>,
    header: ProxyHeader,
    timeout: Duration,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Proxies {
    pub(super) fn new(config: &ServerConfig) -> Self {
        let trusted = config.trusted_proxies.iter();
        Self {
            trusted: trusted.filter_map(|proxy| parse(proxy)).collect(),
            header: config.proxy_header,
            timeout: config.handshake_timeout,
        }
    }

    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|proxy| proxy.contains(&address))
    }

    /// Whether a trusted proxy begins each connection with a header of the PROXY protocol.
    pub(super) fn speak_proxy_protocol(&self) -> bool {
        self.header == ProxyHeader::ProxyProtocol
    }

    /// The client for which a trusted proxy sends a request: the last address in the header that is none of
    /// a trusted proxy's. What is before that, the client may have made up. An address that cannot be read
    /// ends the search: the request counts as the last one's that can.
    pub(super) fn client_of(&self, proxy: IpAddr, headers: &HeaderMap) -> IpAddr {
        let hops: Vec<Option<IpAddr>> = match self.header {
            ProxyHeader::XForwardedFor => lines(headers, X_FORWARDED_FOR)
                .flat_map(|line| x_forwarded_for(&line))
                .collect(),
            ProxyHeader::Forwarded => lines(headers, FORWARDED)
                .flat_map(|line| forwarded(&line))
                .collect(),
            ProxyHeader::ProxyProtocol => Vec::new(),
        };
        let mut client = proxy.to_canonical();
        for hop in hops.into_iter().rev() {
            if !self.is_trusted(client) {
                break;
            }
            match hop {
                Some(hop) => client = hop.to_canonical(),
                None => break,
            }
        }
        client
    }

    /// Reads the header of the PROXY protocol, of either version, with which a trusted proxy begins a
    /// connection. Returns the client's address; the proxy's own if it connects for itself.
    pub(super) async fn read_header(
        &self,
        stream: &mut TcpStream,
        proxy: SocketAddr,
    ) -> io::Result<SocketAddr> {
        timeout(self.timeout, read_header(stream, proxy)).await?
    }
}

/// What `--trusted-proxy` can be: an address, or a network.
pub(crate) fn parse(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or(address).ok()
}

/// A header whose elements are in order over all its lines.
fn lines(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Cow<'_, str>> {
    let lines = headers.get_all(name).into_iter();
    lines.map(|line| String::from_utf8_lossy(line.as_bytes()))
}

/// An address, with or without a port, as proxies write it.
fn address_in(hop: &str) -> Option<IpAddr> {
    let socket = |hop: &str| hop.parse().map(|address: SocketAddr| address.ip()).ok();
    let bracketed = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']'));
    bracketed
        .unwrap_or(hop)
        .parse()
        .ok()
        .or_else(|| socket(hop))
}

/// The addresses of a line of `X-Forwarded-For`.
fn x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.split(',').map(|hop| address_in(hop.trim())).collect()
}

/// The addresses of a line of `Forwarded` (RFC 7239).
fn forwarded(line: &str) -> Vec<Option<IpAddr>> {
    let hops = rfc7239::parse(line).map(|hop| Some(*hop.ok()?.forwarded_for?.ip()?));
    hops.collect()
}

async fn read_header(stream: &mut TcpStream, proxy: SocketAddr) -> io::Result<SocketAddr> {
    /// Of version 1 and of version 2 without what follows the addresses.
    const MAX_V1_BYTES: usize = 107;
    const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
    /// More than what proxies add to the addresses.
    const MAX_V2_BYTES: usize = 4096;
    // Both are longer. Nothing may be read that comes after the header.
    let mut header = vec![0; V2_SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        header.extend(rest);
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if length > MAX_V2_BYTES {
            return Err(malformed());
        }
        let begin = header.len();
        header.resize(begin + length, 0);
        stream.read_exact(&mut header[begin..]).await?;
    } else {
        while !header.ends_with(b"\r\n") {
            if header.len() >= MAX_V1_BYTES {
                return Err(malformed());
            }
            header.push(stream.read_u8().await?);
        }
    }
    let client = match HeaderResult::parse(&header) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Tcp4(tcp) => (tcp.source_address, tcp.source_port).into(),
            v1::Addresses::Tcp6(tcp) => (tcp.source_address, tcp.source_port).into(),
            v1::Addresses::Unknown => proxy,
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
                (ip.source_address, ip.source_port).into()
            }
            (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
                (ip.source_address, ip.source_port).into()
            }
            _ => proxy,
        },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => return Err(malformed()),
    };
    Ok(client)
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the connection of a trusted proxy does not begin with a header of the PROXY protocol",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ProxyHeader, lines: &[(HeaderName, &str)]) -> String {
        let proxies = ["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"];
        let mut config = ServerConfig::new([]).trusted_proxies(proxies);
        config.proxy_header = header;
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(name.clone(), line.parse().expect("a value"));
        }
        let proxy = "::ffff:10.1.2.3".parse().expect("an address");
        Proxies::new(&config).client_of(proxy, &headers).to_string()
    }

    #[test]
    fn the_last_address_that_no_proxy_has_is_the_client() {
        for (lines, expected) in [
            (&[][..], "10.1.2.3"),
            (&["203.0.113.9"], "203.0.113.9"),
            (&["203.0.113.9:4711"], "203.0.113.9"),
            (&["[2001:db8:2::1]:80"], "2001:db8:2::1"),
            (&["2001:db8:2::1"], "2001:db8:2::1"),
            // What the client has sent itself comes first.
            (&["127.0.0.1, 1.2.3.4, 203.0.113.9"], "203.0.113.9"),
            (&["1.2.3.4", "203.0.113.9, 10.9.9.9"], "203.0.113.9"),
            (
                &["203.0.113.9, 2001:db8:1::7, ::ffff:10.0.0.1"],
                "203.0.113.9",
            ),
            // All are proxies: the first of them.
            (&["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            (&["1.2.3.4, unknown"], "10.1.2.3"),
            (&["1.2.3.4, unknown, 10.0.0.7"], "10.0.0.7"),
            (&["1.2.3.4,"], "10.1.2.3"),
            (&["\u{ff}, 10.0.0.7"], "10.0.0.7"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (X_FORWARDED_FOR, *line)).collect();
            let found = client(ProxyHeader::XForwardedFor, &lines);
            assert_eq!(found, expected, "{lines:?}");
        }
        for (line, expected) in [
            ("for=203.0.113.9", "203.0.113.9"),
            (
                "for=1.2.3.4, For=\"[2001:db8:2::1]:80\";proto=https",
                "2001:db8:2::1",
            ),
            ("for=1.2.3.4, for=_hidden", "10.1.2.3"),
            ("for=1.2.3.4, proto=https", "10.1.2.3"),
            ("=,;=\"", "10.1.2.3"),
        ] {
            let found = client(ProxyHeader::Forwarded, &[(FORWARDED, line)]);
            assert_eq!(found, expected, "{line}");
        }
        // A proxy that writes one header passes on the other as the client has sent it.
        let forged = [(X_FORWARDED_FOR, "203.0.113.9"), (FORWARDED, "for=1.2.3.4")];
        assert_eq!(client(ProxyHeader::XForwardedFor, &forged), "203.0.113.9");
        assert_eq!(client(ProxyHeader::Forwarded, &forged), "1.2.3.4");
    }
}
