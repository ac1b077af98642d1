//! The flags of `serve` and `attach` for operators.

use clap::Args;
use stateroom_wasmi_server::ServerConfig;
use std::{error::Error, fs, path::PathBuf};

#[derive(Args)]
#[command(next_help_heading = "Operators")]
pub(crate) struct AdminArgs {
    /// Address and port for operators alone: /metrics, /rooms, /health, /ready, /drain, and closing and
    /// saving rooms [default: all addresses, if they are loopback addresses and no --allow-origin is given]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    admin_listen: Option<(String, u16)>,
    /// File with the token that operators must send, as `Authorization: Bearer TOKEN`; needed if
    /// --admin-listen is no loopback address
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Rooms that have metrics of their own: those that have used the most fuel
    #[arg(long, default_value_t = 0, value_name = "ROOMS")]
    busiest_rooms: usize,
}

pub(crate) fn parse_address(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .ok_or("it must be HOST:PORT, such as 127.0.0.1:9090")?;
    let port = port
        .parse()
        .map_err(|_| "the port must be a number up to 65535")?;
    Ok((host.into(), port))
}

impl AdminArgs {
    pub(crate) fn apply(self, config: ServerConfig) -> Result<ServerConfig, Box<dyn Error>> {
        let token = self.admin_token_file.map(|file| {
            let token = fs::read_to_string(&file);
            token.map_err(|error| format!("cannot read --admin-token-file: {error}"))
        });
        let token = token.transpose()?;
        Ok(config
            .admin_listen(self.admin_listen)
            .admin_token(token.map(|token| token.trim().into()))
            .busiest_rooms(self.busiest_rooms))
    }
}
