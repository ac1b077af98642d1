//! `stateroom-wasmi attach`.

use crate::serve::{at_least_one, run_server};
use clap::Args;
use stateroom_wasmi_host::driver::server::{BoardAddress, Server, ServerConfig};
use std::{error::Error, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

/// Serve the rooms of a board, which speaks over a serial line or a socket, over WebSockets.
///
/// The board runs a host of this crate with its `driver::link`. When the line breaks, or the board
/// starts again, clients are closed with 1012, and the line is opened again.
#[derive(Args)]
pub struct Attach {
    /// A serial port (/dev/ttyACM0, COM3), host:port, or the path of a Unix socket
    #[arg(value_name = "PORT|ADDR")]
    board: String,
    /// Bits per second of a serial port
    #[arg(short, long, default_value_t = 115_200, value_parser = clap::value_parser!(u32).range(1..))]
    baud: u32,
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

impl Attach {
    pub fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let board = BoardAddress::parse(&self.board, self.baud)?;
        let name = format!("the board at {board}");
        let config = self.config();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async { run_server(Server::attach(config, board).await?, &name).await })?;
        Ok(ExitCode::SUCCESS)
    }

    fn config(self) -> ServerConfig {
        let mut config = ServerConfig::new([]);
        config.host = self.host;
        config.port = self.port;
        config.heartbeat_interval = Duration::from_secs(self.heartbeat_interval);
        config.heartbeat_timeout = Duration::from_secs(self.heartbeat_timeout);
        config.static_dir = self.static_dir;
        config.allowed_origins = self.allow_origin;
        config
    }
}
