//! Which process listens for other nodes on an address.
//!
//! The kernel of a machine that runs closes the connections of a process that ends, and refuses new ones until
//! another process listens there, which may be at once. So a node says on each connection first which process it
//! is: eight random bytes. Whoever was connected to a process that has ended is refused, or finds another one.

use core::time::Duration;
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// A process that listens for other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    address: SocketAddr,
    id: ProcessId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcessId([u8; 8]);

impl ProcessId {
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// Says it to whoever has connected.
    pub(super) async fn write(self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.0).await
    }
}

/// Time after which a connection that ends is tried again. A process that ends takes long for that on a busy
/// machine, and may still seem to listen.
const INTERVAL: Duration = Duration::from_millis(20);

impl Process {
    /// Reads which process a connection to this address has reached.
    pub(super) async fn read(address: SocketAddr, stream: &mut TcpStream) -> io::Result<Self> {
        let mut id = [0; 8];
        stream.read_exact(&mut id).await?;
        let id = ProcessId(id);
        Ok(Self { address, id })
    }

    /// Whether it has ended, as far as it can be known. Asked when a connection to it has ended without a word: so
    /// the machine is there, or something else that says so.
    pub(super) async fn has_ended(self) -> bool {
        /// Another process may listen already, and take long to start.
        const TIMEOUT: Duration = Duration::from_secs(2);
        timeout(TIMEOUT, self.find_out()).await.unwrap_or(false)
    }

    async fn find_out(self) -> bool {
        /// A machine that is there takes no longer to say whether somebody listens.
        const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
        loop {
            let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address));
            let found = match connecting.await {
                Ok(Ok(mut stream)) => Self::read(self.address, &mut stream).await,
                Ok(Err(error)) => Err(error),
                Err(late) => Err(late.into()),
            };
            match found {
                Ok(found) => return found != self,
                Err(error) if is_ending(&error) => sleep(INTERVAL).await,
                Err(error) => return error.kind() == io::ErrorKind::ConnectionRefused,
            }
        }
    }
}

/// Waits until the process of the node that listens for others on this address
/// ([`Server::peer_addrs`](crate::Server::peer_addrs)) has ended, if it is there now or will be: nobody listens there
/// any more, or another process does. A machine that falls silent is waited for. Like all that is known of other
/// machines, it is no proof.
pub async fn wait_for_peer_end(address: SocketAddr) {
    /// For whoever takes longer, the machine is silent or busy.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    const UNREACHABLE_INTERVAL: Duration = Duration::from_secs(1);
    let mut process = None;
    loop {
        let connecting = timeout(CONNECT_TIMEOUT, async {
            let mut stream = TcpStream::connect(address).await?;
            let found = Process::read(address, &mut stream).await?;
            io::Result::Ok((stream, found))
        });
        match connecting.await.unwrap_or_else(|late| Err(late.into())) {
            Ok((_, found)) if process.is_some_and(|known| found != known) => return,
            Ok((mut stream, found)) => {
                process = Some(found);
                let since = Instant::now();
                let mut buffer = [0; 64];
                while let Ok(1..) = stream.read(&mut buffer).await {}
                if since.elapsed() < INTERVAL {
                    sleep(INTERVAL).await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && process.is_some() => {
                return;
            }
            Err(error) if is_ending(&error) => sleep(INTERVAL).await,
            Err(_) => sleep(UNREACHABLE_INTERVAL).await,
        }
    }
}

/// Whether the process may have ended while a connection to it began.
fn is_ending(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::pin::pin;
    use futures_util::FutureExt;
    use socket2::SockRef;
    use tokio::net::TcpListener;

    /// A process that listens, as far as others can tell.
    struct Listening {
        listener: TcpListener,
        id: ProcessId,
    }

    impl Listening {
        async fn on(address: SocketAddr) -> Self {
            Self {
                listener: TcpListener::bind(address).await.expect("it is free"),
                id: ProcessId::random().expect("there is randomness"),
            }
        }

        async fn on_any_port() -> Self {
            Self::on(SocketAddr::from(([127, 0, 0, 1], 0))).await
        }

        fn process(&self) -> Process {
            let address = self.listener.local_addr().expect("it is bound");
            let id = self.id;
            Process { address, id }
        }

        /// Says who it is to the next that connects.
        async fn answer(&self) -> TcpStream {
            let (mut stream, _) = self.listener.accept().await.expect("it connects");
            self.id.write(&mut stream).await.expect("it is read");
            stream
        }

        /// Its connections are closed as the kernel closes those of a process that is killed.
        fn end(self, connections: Vec<TcpStream>) -> SocketAddr {
            let address = self.process().address;
            for connection in connections {
                let closed = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
                closed.expect("it is a socket");
            }
            address
        }
    }

    #[tokio::test]
    async fn a_process_that_ends_while_a_connection_begins_has_ended() {
        let listening = Listening::on_any_port().await;
        let mut ended = pin!(listening.process().has_ended());
        assert!((&mut ended).now_or_never().is_none());
        let (connection, _) = listening.listener.accept().await.expect("it connects");
        listening.end(vec![connection]);
        assert!(ended.await);
    }

    #[tokio::test]
    async fn a_process_that_listens_has_not_ended() {
        let listening = Listening::on_any_port().await;
        let asked = listening.process().has_ended();
        let (has_ended, _stream) = tokio::join!(asked, listening.answer());
        assert!(!has_ended);
    }

    #[tokio::test]
    async fn a_process_has_ended_if_another_listens() {
        let listening = Listening::on_any_port().await;
        let process = listening.process();
        let mut waiting = pin!(wait_for_peer_end(process.address));
        let mut ended = pin!(process.has_ended());
        assert!((&mut waiting).now_or_never().is_none());
        // It connects again when it has read who this is.
        let answering_twice = async {
            drop(listening.answer().await);
            listening.answer().await
        };
        let stream = tokio::select! {
            stream = answering_twice => stream,
            () = &mut waiting => panic!("it has not ended"),
        };
        let next = Listening::on(listening.end(vec![stream])).await;
        let answering = async {
            loop {
                next.answer().await;
            }
        };
        tokio::select! {
            (has_ended, ()) = async { tokio::join!(&mut ended, &mut waiting) } => assert!(has_ended),
            () = answering => {}
        }
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_and_that_of_a_connection_is_not() {
        let listening = Listening::on_any_port().await;
        let address = listening.process().address;
        let ended = tokio::spawn(wait_for_peer_end(address));
        for _ in 0..3 {
            drop(listening.answer().await);
        }
        let connection = listening.answer().await;
        assert!(!ended.is_finished());
        listening.end(vec![connection]);
        ended.await.expect("it does not panic");
    }
}
