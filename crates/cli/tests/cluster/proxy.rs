//! A network between a node and the servers of NATS, which can be cut.

use crate::network::Entrance;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{oneshot, watch},
};

/// Passes bytes on unless it is cut: then it keeps them, and the ends of connections, until it is not.
pub struct Proxy {
    pub address: SocketAddr,
}

/// Starts one for each target, at a machine.
pub async fn start_all(
    entrance: Entrance,
    targets: Vec<SocketAddr>,
    is_cut: watch::Receiver<bool>,
) -> Vec<Proxy> {
    let (started, have_started) = oneshot::channel();
    // It ends with the process.
    std::thread::spawn(move || {
        entrance.enter();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("it can be made").block_on(async {
            let mut proxies = Vec::new();
            for target in targets {
                proxies.push(Proxy::start(target, is_cut.clone()).await);
            }
            let _ = started.send(proxies);
            std::future::pending::<()>().await;
        });
    });
    have_started.await.expect("they start")
}

impl Proxy {
    async fn start(target: SocketAddr, is_cut: watch::Receiver<bool>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    wait(&mut is_cut).await;
                    let Ok(server) = TcpStream::connect(target).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(
                        pass_on(from_client, to_server, is_cut.clone()),
                        pass_on(from_server, to_client, is_cut),
                    );
                });
            }
        });
        Self { address }
    }
}

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        wait(&mut is_cut).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    wait(&mut is_cut).await;
    let _ = to.shutdown().await;
}

/// Waits until it is not cut.
async fn wait(is_cut: &mut watch::Receiver<bool>) {
    // Fails if the test has ended.
    let _ = is_cut.wait_for(|is_cut| !is_cut).await;
}
