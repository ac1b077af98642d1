//! Connections from when they come in until they are WebSockets, or have ended.

use crate::{
    config::ServerConfig,
    http::admission::{ConnectionLimiter, Rejection},
    http::throttled_stream::{ThrottledStream, lingering_close},
    rate_limit::{LogLimiter, Rate, TokenBucket},
};
use axum::{Router, serve::Listener};
use core::{future::Future, pin::pin, time::Duration};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{boxed::Box, format, sync::Arc};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_io_timeout::TimeoutStream;

/// Takes connections and serves HTTP on them.
pub(crate) struct Acceptor {
    listener: TcpListener,
    http: http1::Builder,
    door: ConnectionLimiter,
    byte_rate: Rate,
    write_timeout: Duration,
    /// For those that are being told that they may not connect.
    turned_away: Arc<Semaphore>,
    log: LogLimiter,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener, config: &ServerConfig) -> Self {
        /// Answers of a few bytes to those that are turned away, under way at a time.
        const TURNED_AWAY: usize = 64;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.handshake_timeout)
            .max_buf_size(MAX_HEAD_BYTES);
        Self {
            listener,
            http,
            door: ConnectionLimiter::new(config),
            byte_rate: config.byte_rate,
            write_timeout: config.heartbeat_timeout,
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            log: LogLimiter::new(),
        }
    }

    /// Serves until `stop` is ready, and then until the requests are answered.
    pub(crate) async fn serve(mut self, app: Router, stop: impl Future<Output = ()>) {
        let app = TowerToHyperService::new(app);
        // Each connection has a receiver until it ends.
        let (stopping, stopped) = watch::channel(());
        let mut stop = pin!(stop);
        loop {
            let (stream, address) = tokio::select! {
                accepted = Listener::accept(&mut self.listener) => accepted,
                () = &mut stop => break,
            };
            let place = match self.door.enter(address.ip()) {
                Ok(place) => place,
                Err(why) => {
                    if self.log.may() {
                        log::warn!("{address} is turned away: {}", why.reason);
                    }
                    self.turn_away(stream, why);
                    continue;
                }
            };
            // Messages are small and are to leave at once.
            let _ = stream.set_nodelay(true);
            let stream = ThrottledStream::new(stream, place, TokenBucket::new(self.byte_rate));
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(self.write_timeout));
            let connection = self
                .http
                .serve_connection(TokioIo::new(Box::pin(stream)), app.clone());
            let mut stopped = stopped.clone();
            tokio::spawn(async move {
                let mut connection = pin!(connection.with_upgrades());
                let served = tokio::select! {
                    served = &mut connection => served,
                    _ = stopped.changed() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = served {
                    log::debug!("the connection of {address} has failed: {error}");
                }
            });
        }
        drop((self.listener, stopped));
        let _ = stopping.send(());
        stopping.closed().await;
    }

    /// Answers that there is no place; who comes in a flood gets no answer.
    fn turn_away(&self, mut stream: TcpStream, Rejection { status, reason }: Rejection) {
        let Ok(permit) = self.turned_away.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let answer = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\nretry-after: 1\r\n\
                 content-type: text/plain\r\ncontent-length: {}\r\n\r\n{reason}\n",
                reason.len() + 1,
            );
            // It fits into the buffer of a connection that is new.
            if stream.write_all(answer.as_bytes()).await.is_ok() {
                lingering_close(stream).await;
            }
            drop(permit);
        });
    }
}

/// The line and the headers of a request; more is answered with 431.
const MAX_HEAD_BYTES: usize = 16 << 10;
