//! What every server is told: where to listen, and whom to.

use clap::{Args, builder::RangedU64ValueParser};
use stateroom_wasmi_server::ServerConfig;
use std::{net::IpAddr, path::PathBuf, time::Duration};

#[derive(Args)]
pub(crate) struct ListenArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 picks a free one
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    /// Seconds between two pings
    #[arg(short = 'i', long, default_value_t = 30, value_name = "SECONDS", value_parser = at_least_one())]
    heartbeat_interval: u64,
    /// Seconds after which a client that sends nothing is dropped
    #[arg(short = 't', long, default_value_t = 120, value_name = "SECONDS", value_parser = at_least_one())]
    heartbeat_timeout: u64,
    /// Folder to serve under / instead of the bundled page
    #[arg(long = "static", value_name = "DIR")]
    static_dir: Option<PathBuf>,
    /// Origin (scheme://host:port) whose pages may connect besides the server's own; may be
    /// given again; * for all
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
}

impl ListenArgs {
    pub(crate) fn set(self, config: &mut ServerConfig) {
        config.host = self.host;
        config.port = self.port;
        config.heartbeat_interval = Duration::from_secs(self.heartbeat_interval);
        config.heartbeat_timeout = Duration::from_secs(self.heartbeat_timeout);
        config.static_dir = self.static_dir;
        config.allowed_origins = self.allow_origin;
    }
}

/// Seconds, as many as a timer can take.
pub(crate) fn at_least_one() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=u32::MAX.into())
}
