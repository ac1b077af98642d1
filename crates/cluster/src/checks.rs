//! Whether NATS can keep what is promised.

use crate::{config::ClusterConfig, error::ClusterError};
use async_nats::Client;
use core::time::Duration;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The oldest version of NATS that was tested.
const MIN_VERSION: (u32, u32) = (2, 15);

/// Bytes of a message that are not the client's.
const OVERHEAD: usize = 64 << 10;

/// # Errors
///
/// If it cannot, and that was not accepted.
pub(crate) async fn check(client: &Client, config: &ClusterConfig) -> Result<(), ClusterError> {
    let expected = config.max_message_bytes.saturating_add(OVERHEAD);
    let found = client.max_payload();
    if found < expected {
        return Err(ClusterError::MaxPayload { found, expected });
    }
    match check_promises(client, config).await {
        Err(error) if config.is_unsafe => {
            log::warn!("{error}; what clients have seen may be lost");
            Ok(())
        }
        result => result,
    }
}

async fn check_promises(client: &Client, config: &ClusterConfig) -> Result<(), ClusterError> {
    let version = client.server_info().version;
    if parse_version(&version).is_none_or(|version| version < MIN_VERSION) {
        return Err(ClusterError::Version { found: version });
    }
    if config.replicas < 3 {
        return Err(ClusterError::Replicas {
            found: config.replicas,
            expected: 3,
        });
    }
    if config.monitors.len() < config.replicas {
        return Err(ClusterError::SyncInterval(format!(
            "the addresses of the monitoring of all servers are needed to know, and {} were given",
            config.monitors.len()
        )));
    }
    for monitor in &config.monitors {
        let varz = timeout(Duration::from_secs(5), get(monitor, "/varz")).await;
        let varz = varz.unwrap_or_else(|_| Err("it does not answer".into()));
        let varz = varz.map_err(|reason| ClusterError::Monitor(format!("{monitor}: {reason}")))?;
        check_server(&varz)
            .map_err(|reason| ClusterError::SyncInterval(format!("{monitor}: {reason}")))?;
    }
    Ok(())
}

/// The first two numbers of a version.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[derive(Deserialize)]
struct Varz {
    version: String,
    jetstream: Option<JetStream>,
}

#[derive(Deserialize)]
struct JetStream {
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
}

fn check_server(varz: &[u8]) -> Result<(), String> {
    let varz: Varz = serde_json::from_slice(varz).map_err(|error| error.to_string())?;
    if parse_version(&varz.version).is_none_or(|version| version < MIN_VERSION) {
        return Err(format!("it is the version {}", varz.version));
    }
    let config = varz.jetstream.and_then(|jetstream| jetstream.config);
    match config {
        None => Err("it has no JetStream".into()),
        Some(config) if !config.sync_always => Err("it has not".into()),
        Some(_) => Ok(()),
    }
}

/// Gets a page over HTTP, in the version without chunks.
async fn get(address: &str, path: &str) -> Result<Vec<u8>, String> {
    const MAX_BYTES: u64 = 1 << 20;
    let address = address.strip_prefix("http://").unwrap_or(address);
    let address = address.trim_end_matches('/');
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut response = Vec::new();
    let mut limited = stream.take(MAX_BYTES);
    limited.read_to_end(&mut response).await.map_err(failed)?;
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.ok_or("it does not speak HTTP")?;
    let is_ok = response.starts_with(b"HTTP/1.0 200") || response.starts_with(b"HTTP/1.1 200");
    match is_ok {
        true => Ok(response.split_off(end + 4)),
        false => Err("it does not have the page".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared() {
        assert_eq!(parse_version("2.15.1"), Some((2, 15)));
        assert_eq!(parse_version("2.9.0-beta.1"), Some((2, 9)));
        assert_eq!(parse_version("x"), None);
        assert!(parse_version("2.9.25") < Some(MIN_VERSION));
        assert!(parse_version("3.0") > Some(MIN_VERSION));
    }
}
