//! Connections that leaves have opened to this node, for clients of their rooms.

use super::peers::{Forwarded, introduce, keep_alive};
use crate::{http::ConnectionPermit, stream::Stream};
use core::pin::pin;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::TcpStream as StdStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{net::TcpStream, sync::Notify};

/// Connections of all leaves. Each of them is for one client, and the leaf opens another one when it is used.
#[derive(Default)]
pub(super) struct Leaves(Mutex<BTreeMap<u64, Arc<Offers>>>);

/// Those of one leaf that are not used yet.
#[derive(Default)]
struct Offers {
    unused: Mutex<VecDeque<Offer>>,
    is_new: Notify,
}

struct Offer {
    /// Of no runtime, since another thread may take it.
    stream: StdStream,
    /// Of what the leaf has said when it connected.
    secret_hash: [u8; 32],
    /// Counts it until it is used.
    _permit: ConnectionPermit,
}

/// More of them replace the oldest, which may be dead without this node knowing it.
const MAX_OFFERS: usize = 16;

/// Leaves that have connections.
const MAX_LEAVES: usize = 1024;

impl Leaves {
    /// Takes a connection of a leaf for a client that will come.
    pub(super) fn offer(
        &self,
        leaf: u64,
        secret_hash: [u8; 32],
        stream: TcpStream,
        permit: ConnectionPermit,
    ) -> io::Result<()> {
        keep_alive(&stream)?;
        let offers = self.of(leaf)?;
        let offer = Offer {
            stream: stream.into_std()?,
            secret_hash,
            _permit: permit,
        };
        let mut unused = lock(&offers.unused);
        if unused.len() >= MAX_OFFERS {
            unused.pop_front();
        }
        unused.push_back(offer);
        drop(unused);
        offers.is_new.notify_one();
        Ok(())
    }

    /// Uses a connection of a leaf, as soon as there is one.
    pub(super) async fn connect(&self, leaf: u64, client: &Forwarded) -> io::Result<Stream> {
        let offers = self.of(leaf)?;
        let stream = loop {
            let mut is_new = pin!(offers.is_new.notified());
            // It hears of what comes from here on.
            is_new.as_mut().enable();
            if let Some(offer) = offers.take() {
                break offer.stream;
            }
            is_new.await;
        };
        let mut stream = TcpStream::from_std(stream)?;
        // The leaf has chosen whom it connects to, and needs no secret.
        introduce(&mut stream, "", Some(client)).await?;
        Ok(Stream::Plain(stream))
    }

    /// Closes the connections that have ended, and those of leaves that are not there any more, as `leaf` says for
    /// the hashes of their secrets.
    pub(super) fn retain(&self, leaf: impl Fn([u8; 32]) -> Option<u64>) {
        lock(&self.0).retain(|id, offers| {
            let is_there = |offer: &Offer| leaf(offer.secret_hash) == Some(*id);
            lock(&offers.unused).retain(is_there);
            offers.is_used()
        });
    }

    fn of(&self, leaf: u64) -> io::Result<Arc<Offers>> {
        let mut leaves = lock(&self.0);
        if let Some(offers) = leaves.get(&leaf) {
            return Ok(offers.clone());
        }
        leaves.retain(|_, offers| offers.is_used());
        if leaves.len() >= MAX_LEAVES {
            return Err(io::Error::other("there are too many leaves"));
        }
        Ok(leaves.entry(leaf).or_default().clone())
    }
}

impl Offers {
    /// The newest that has not ended: it is the last to have been seen alive.
    fn take(&self) -> Option<Offer> {
        let mut unused = lock(&self.unused);
        while let Some(offer) = unused.pop_back() {
            if offer.is_open() {
                return Some(offer);
            }
        }
        None
    }

    /// Whether a client waits, or there is something to be used.
    fn is_used(self: &Arc<Self>) -> bool {
        lock(&self.unused).retain(Offer::is_open);
        Arc::strong_count(self) > 1 || !lock(&self.unused).is_empty()
    }
}

impl Offer {
    /// Whether it has not ended, as far as the system knows. A leaf says nothing before it is asked.
    fn is_open(&self) -> bool {
        let peeked = self.stream.peek(&mut [0]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::ServerConfig, http::ConnectionLimiter};
    use tokio::{io::AsyncReadExt, net::TcpListener};

    #[tokio::test]
    async fn connections_of_leaves_that_have_gone_are_closed() {
        let mut config = ServerConfig::new(Vec::new());
        config.max_connections = 2;
        let limiter = ConnectionLimiter::for_peers(&config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it binds");
        let address = listener.local_addr().expect("it is bound");
        let (leaves, mut ends) = (Leaves::default(), Vec::new());
        for leaf in [1, 2] {
            ends.push(TcpStream::connect(address).await.expect("it connects"));
            let (stream, _) = listener.accept().await.expect("it is accepted");
            let permit = limiter.admit_proxy().ok().expect("there is room");
            leaves
                .offer(leaf, [leaf as u8; 32], stream, permit)
                .expect("it is taken");
        }
        assert!(limiter.admit_proxy().is_err());
        leaves.retain(|hash| Some(u64::from(hash[0])));
        assert!(limiter.admit_proxy().is_err(), "both are there");
        leaves.retain(|hash| (hash == [2; 32]).then_some(2));
        assert!(limiter.admit_proxy().is_ok());
        assert_eq!(ends[0].read(&mut [0]).await.expect("no error"), 0);
        assert!(lock(&leaves.0).contains_key(&2));
        // It runs again, as another one.
        leaves.retain(|_| Some(3));
        assert_eq!(ends[1].read(&mut [0]).await.expect("no error"), 0);
        assert!(lock(&leaves.0).is_empty());
    }
}
