//! `stateroom-wasmi attach`.

use crate::{listen::ListenArgs, serve::run_server};
use clap::Args;
use stateroom_wasmi_server::{BoardAddress, Server, ServerConfig};
use std::{error::Error, process::ExitCode};

/// Serve the rooms of a board, which speaks over a serial line or a socket, over WebSockets.
///
/// The board runs a host of this crate with its `driver::link`. When the line breaks, or the board
/// starts again, clients are closed with 1012, and the line is opened again.
#[derive(Args)]
pub(crate) struct Attach {
    /// A serial port (/dev/ttyACM0, COM3), host:port, or the path of a Unix socket
    #[arg(value_name = "PORT|ADDR")]
    board: String,
    /// Bits per second of a serial port
    #[arg(short, long, default_value_t = 115_200, value_parser = clap::value_parser!(u32).range(1..))]
    baud: u32,
    #[command(flatten)]
    listen: ListenArgs,
}

impl Attach {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let board = BoardAddress::parse(&self.board, self.baud)?;
        let name = format!("the board at {board}");
        let config = self.config();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime
            .block_on(async { run_server(Server::attach(config, board).await?, &name).await })?;
        Ok(ExitCode::SUCCESS)
    }

    fn config(self) -> ServerConfig {
        let mut config = ServerConfig::new([]);
        self.listen.set(&mut config);
        config
    }
}
