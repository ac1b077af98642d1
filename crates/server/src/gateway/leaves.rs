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
        stream: TcpStream,
        permit: ConnectionPermit,
    ) -> io::Result<()> {
        keep_alive(&stream)?;
        let offers = self.of(leaf)?;
        let offer = Offer {
            stream: stream.into_std()?,
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
