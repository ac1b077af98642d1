//! The addresses that a server listens on.

use crate::config::ServeError;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, lookup_host};

/// A socket that listens.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) address: SocketAddr,
}

/// Whether all of these are loopback addresses.
pub(crate) fn are_local(listeners: &[Listener]) -> bool {
    listeners
        .iter()
        .all(|listener| listener.address.ip().to_canonical().is_loopback())
}

/// Listens on all addresses of these hosts, in their order.
///
/// For port 0, the first address gets a free port, and the others get the same.
pub(crate) async fn listen(hosts: &[String], port: u16) -> Result<Vec<Listener>, ServeError> {
    /// A port that is free for the first address may be in use for another.
    const MAX_ATTEMPTS: usize = 16;
    let mut candidates = Vec::new();
    for host in hosts {
        resolve(host, port, &mut candidates).await?;
    }
    let mut attempt = 1;
    loop {
        match bind_all(&candidates, port) {
            Err((_, error))
                if port == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempt < MAX_ATTEMPTS =>
            {
                attempt += 1;
            }
            bound => return bound.map_err(|(address, error)| listen_error(address, error)),
        }
    }
}

struct Candidate {
    address: SocketAddr,
    /// Whether its host is a name that has other addresses, too.
    has_alternatives: bool,
}

/// Appends the addresses of a host that are not listed yet.
async fn resolve(host: &str, port: u16, candidates: &mut Vec<Candidate>) -> Result<(), ServeError> {
    let unbracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let addresses = lookup_host((unbracketed, port)).await;
    let addresses =
        addresses.map_err(|error| listen_error(format_args!("{host}:{port}"), error))?;
    let addresses: Vec<_> = addresses.collect();
    for address in &addresses {
        if candidates.iter().all(|listed| listed.address != *address) {
            candidates.push(Candidate {
                address: *address,
                has_alternatives: addresses.len() > 1,
            });
        }
    }
    Ok(())
}

type BindError = (SocketAddr, io::Error);

fn bind_all(candidates: &[Candidate], mut port: u16) -> Result<Vec<Listener>, BindError> {
    // The unspecified address of IPv6 would take the ports of all IPv4 addresses.
    let only_ipv6 = candidates
        .iter()
        .any(|candidate| candidate.address.is_ipv4());
    let mut listeners = Vec::new();
    let mut skipped = None;
    for candidate in candidates {
        let mut address = candidate.address;
        address.set_port(port);
        match bind(address, only_ipv6) {
            Ok(listener) => {
                port = listener.address.port();
                listeners.push(listener);
            }
            Err(error) if candidate.has_alternatives && is_unavailable(&error) => {
                skipped = Some((address, error));
            }
            Err(error) => return Err((address, error)),
        }
    }
    match skipped {
        Some(skipped) if listeners.is_empty() => Err(skipped),
        Some((address, error)) => {
            log::warn!("does not listen on {address}: {error}");
            Ok(listeners)
        }
        None => Ok(listeners),
    }
}

fn bind(address: SocketAddr, only_ipv6: bool) -> io::Result<Listener> {
    /// Connections that wait to be accepted.
    const BACKLOG: i32 = 1024;
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server can have the port at once. On Windows the option means something else.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && only_ipv6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from_std(socket.into())?;
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}

/// Whether the system has no such address, such as where IPv6 is turned off.
fn is_unavailable(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

fn listen_error(address: impl ToString, error: io::Error) -> ServeError {
    ServeError::Listen {
        address: address.to_string(),
        error,
    }
}
