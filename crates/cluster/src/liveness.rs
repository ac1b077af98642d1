//! Finds out at once when another process has ended.
//!
//! The kernel of a machine that runs closes the connections of a process that ends, and refuses new ones. So a
//! connection is held open to each node, and when it ends another one is tried. That nobody listens there any
//! more is no proof, but nothing depends on it: see [`protocol`](crate::protocol).

use core::time::Duration;
use std::{io::ErrorKind, net::SocketAddr};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Returns when nobody listens on this address any more, where somebody did.
pub(crate) async fn wait_for_end(address: SocketAddr) {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// Between two connections of which the first was short.
    const INTERVAL: Duration = Duration::from_millis(20);
    const UNREACHABLE_INTERVAL: Duration = Duration::from_secs(1);
    let mut was_there = false;
    loop {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(mut stream)) => {
                was_there = true;
                let since = Instant::now();
                let mut buffer = [0; 64];
                // What is sent, if anything, says that it is there.
                while let Ok(1..) = stream.read(&mut buffer).await {}
                if since.elapsed() < INTERVAL {
                    sleep(INTERVAL).await;
                }
            }
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused && was_there => return,
            // It has ended while the connection began.
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => sleep(INTERVAL).await,
            // The machine may be silent, of which the pings tell, or not to be reached from here at all.
            Ok(Err(_)) | Err(_) => sleep(UNREACHABLE_INTERVAL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_end_of_a_listener_is_noticed_and_that_of_a_connection_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let ended = tokio::spawn(wait_for_end(address));
        for _ in 0..3 {
            drop(listener.accept().await.expect("it connects again"));
        }
        let (connection, _) = listener.accept().await.expect("it connects again");
        assert!(!ended.is_finished());
        drop(listener);
        drop(connection);
        ended.await.expect("it does not panic");
    }
}
