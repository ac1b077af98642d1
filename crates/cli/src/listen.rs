//! The flags that `serve` and `attach` share: where to listen, and who may connect.

use clap::{Args, builder::RangedU64ValueParser};
use stateroom_wasmi_server::ServerConfig;
use std::{path::PathBuf, time::Duration};

#[derive(Args)]
pub(crate) struct ListenArgs {
    /// Address to listen on, or name whose addresses to listen on; repeatable
    #[arg(long, default_values_t = defaults().hosts)]
    host: Vec<String>,
    /// Port to listen on; 0 picks a free one
    #[arg(short, long, default_value_t = defaults().port)]
    port: u16,
    /// Seconds between two pings
    #[arg(
        short = 'i',
        long,
        default_value_t = defaults().heartbeat_interval.as_secs(),
        value_name = "SECONDS",
        value_parser = timeout_seconds(),
    )]
    heartbeat_interval: u64,
    /// Seconds without data after which a client is disconnected
    #[arg(
        short = 't',
        long,
        default_value_t = defaults().heartbeat_timeout.as_secs(),
        value_name = "SECONDS",
        value_parser = timeout_seconds(),
    )]
    heartbeat_timeout: u64,
    /// Folder to serve at / instead of the built-in page
    #[arg(long = "static", value_name = "DIR")]
    static_dir: Option<PathBuf>,
    /// Origin (scheme://host or scheme://host:port) whose pages may connect, besides the server's
    /// own; repeatable; * allows all
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Subprotocol of WebSockets that clients may choose; repeatable [default: any]
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
}

impl ListenArgs {
    pub(crate) fn apply(self, config: ServerConfig) -> ServerConfig {
        let mut config = config
            .hosts(self.host)
            .port(self.port)
            .heartbeat_interval(Duration::from_secs(self.heartbeat_interval))
            .heartbeat_timeout(Duration::from_secs(self.heartbeat_timeout))
            .allowed_origins(self.allow_origin)
            .subprotocols(self.subprotocol);
        config.static_dir = self.static_dir;
        config
    }
}

/// The source of the flags' defaults.
pub(crate) fn defaults() -> ServerConfig {
    ServerConfig::new([])
}

/// At least one second, and no more than a timer can take.
pub(crate) fn timeout_seconds() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=u32::MAX.into())
}
