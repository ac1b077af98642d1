//! `stateroom-wasmi attach`.

#[cfg(feature = "cluster")]
use crate::leaf::{LeafArgs, run_leaf};
#[cfg(not(feature = "cluster"))]
use crate::serve::run_server;
use crate::{
    admin::AdminArgs,
    listen::{ListenArgs, defaults},
    logging::Logging,
    serve::run,
};
use clap::Args;
use stateroom_wasmi_server::{BoardAddress, Server};
use std::{error::Error, process::ExitCode};

/// Serve the rooms of a board over WebSockets
///
/// The board runs a host with the crate stateroom-wasmi-link. When the link breaks or the board
/// restarts, clients are closed with 1012 and the link is reopened.
#[derive(Args)]
pub(crate) struct Attach {
    /// Serial port (/dev/ttyACM0, COM3), host:port, or path of a Unix socket
    #[arg(value_name = "PORT|ADDR")]
    board: String,
    /// Bits per second of a serial port
    #[arg(
        short,
        long,
        default_value_t = 115_200,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    baud: u32,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    leaf: LeafArgs,
}

impl Attach {
    pub(crate) fn run(self, logging: &Logging) -> Result<ExitCode, Box<dyn Error>> {
        logging.set_format(self.listen.log_format);
        let board = BoardAddress::parse(&self.board, self.baud)?;
        let name = format!("the board at {board}");
        let config = self.admin.apply(self.listen.apply(defaults())?)?;
        let config = config.log_lines_lost(Some(logging.lines_lost()));
        run(async {
            #[cfg(feature = "cluster")]
            {
                let (config, leaf) = self.leaf.join(config).await?;
                run_leaf(Server::attach(config, board).await?, &name, leaf).await
            }
            #[cfg(not(feature = "cluster"))]
            run_server(Server::attach(config, board).await?, &name).await
        })
    }
}
