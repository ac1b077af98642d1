//! `stateroom-wasmi save`, `load` and `move`: rooms of running servers.

use crate::print;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use stateroom_wasmi_host::{Escaped, SnapshotInfo};
use stateroom_wasmi_server::journal::RoomFile;
use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use ureq::{Agent, Body, http::Response};

/// Save a room of a running server to a file
///
/// The room goes on. The file is a snapshot, which `load` loads and from which `replay` can begin.
#[derive(Args)]
pub(crate) struct Save {
    #[command(flatten)]
    server: ServerArgs,
    /// The room's id
    room: String,
    /// The file
    file: PathBuf,
}

/// Open a room of a file in a running server
///
/// The file is one of `save`, `move` or `store export`. The server must have the room's module, and no room of
/// its id.
#[derive(Args)]
pub(crate) struct Load {
    #[command(flatten)]
    server: ServerArgs,
    /// The file
    file: PathBuf,
}

/// Move a room from one running server to another
///
/// It goes on there exactly where it was, with what waits in it. Its clients are closed with 1012 and where
/// it is; those that come back, by a token or by stateroom.resume.1, are who they were. Until the move is over
/// the room is also in a file, so that it is not lost whatever fails.
#[derive(Args)]
pub(crate) struct Move {
    #[command(flatten)]
    server: ServerArgs,
    /// Operators' address of the other server
    to: Address,
    /// The room's id
    room: String,
    /// Where clients find it then: the URL of its WebSocket, which they are told
    #[arg(long, value_name = "URL", value_parser = parse_client_url)]
    tell: Option<String>,
    /// File with the other server's token [default: the same]
    #[arg(long, value_name = "FILE")]
    to_token_file: Option<PathBuf>,
    /// File that has the room until it has moved [default: one in the folder for temporary files]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Args)]
struct ServerArgs {
    /// Operators' address of the server, such as http://127.0.0.1:9090
    server: Address,
    /// File with the token that the server's --admin-token-file has
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The beginning of a URL.
#[derive(Clone)]
struct Address(String);

impl core::str::FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_end_matches('/');
        let host = text.strip_prefix("http://");
        let host = host.filter(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']));
        match host {
            Some(_) => Ok(Self(text.into())),
            None => Err("it must be http://HOST:PORT, such as http://127.0.0.1:9090"),
        }
    }
}

fn parse_client_url(text: &str) -> Result<String, &'static str> {
    let is_websocket = text.starts_with("ws://") || text.starts_with("wss://");
    match is_websocket && text.len() <= 114 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.into()),
        false => Err("it must be a URL of ws:// or wss://, of no more than 114 characters"),
    }
}

impl Save {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let server = self.server.connect()?;
        let response = server.get(&format!("{}/snapshot", path_of(&self.room)))?;
        fs::write(&self.file, read(response)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Load {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let server = self.server.connect()?;
        let bytes = fs::read(&self.file)?;
        let id = match RoomFile::decode(&bytes) {
            Some(file) => file.id,
            None => SnapshotInfo::read(&bytes)?.room_id.into(),
        };
        server.put(&path_of(&id), &bytes)?;
        print(&format!("loaded {:?}\n", Escaped::new(&id)))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Move {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let from = self.server.connect()?;
        let to = Server::new(self.to, self.to_token_file.or(self.server.token_file))?;
        let path = path_of(&self.room);
        let response = from.post(&format!("{path}/hold?seconds=60"))?;
        let hold = hold_of(&response)?;
        // If that fails, the hold has ended by itself, and the room goes on in any case.
        let release = || drop(from.post(&format!("{path}/resume?hold={hold}")));
        let room = read(response).inspect_err(|_| release())?;
        let file = self.file.unwrap_or_else(|| {
            let name = format!("stateroom-move-{}.room", std::process::id());
            std::env::temp_dir().join(name)
        });
        if let Err(error) = write_new(&file, &room) {
            release();
            return Err(format!("cannot write {:?}: {error}", Escaped::new(file.display())).into());
        }
        let arrived = to.put(&format!("{path}?seconds=60"), &room);
        let arrived = match arrived.and_then(|response| hold_of(&response)) {
            Ok(arrived) => arrived,
            Err(error) => {
                release();
                fs::remove_file(&file)?;
                return Err(error);
            }
        };
        // From here on the room is at one of them, or only in the file.
        let kept = |step: &str, error: &dyn Error| {
            let file = Escaped::new(file.display()).to_string();
            format!(
                "{step}: {error}; the room is kept in {file:?}, to be loaded where there is none"
            )
        };
        let location = self.tell.as_deref().map_or_else(String::new, |url| {
            format!("&to={}", utf8_percent_encode(url, NON_ALPHANUMERIC))
        });
        from.post(&format!("{path}/moved?hold={hold}{location}"))
            .map_err(|error| kept("the server may not have given the room up", &*error))?;
        to.post(&format!("{path}/resume?hold={arrived}"))
            .map_err(|error| kept("the other server did not let the room go on", &*error))?;
        fs::remove_file(&file)?;
        print(&format!("moved {:?}\n", Escaped::new(&self.room)))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn write_new(file: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write;
    let mut options = fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn path_of(room: &str) -> String {
    format!("/rooms/{}", utf8_percent_encode(room, NON_ALPHANUMERIC))
}

impl ServerArgs {
    fn connect(&self) -> Result<Server, Box<dyn Error>> {
        Server::new(self.server.clone(), self.token_file.clone())
    }
}

/// The operators' address of a server.
struct Server {
    agent: Agent,
    address: Address,
    token: Option<String>,
}

/// The longest file of a room.
const MAX_ROOM_BYTES: u64 = 64 << 20;

impl Server {
    fn new(address: Address, token_file: Option<PathBuf>) -> Result<Self, Box<dyn Error>> {
        let token = token_file.map(|file| {
            let token = fs::read_to_string(&file);
            token.map_err(|error| format!("cannot read the token's file: {error}"))
        });
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Ok(Self {
            agent: config.into(),
            address,
            token: token.transpose()?.map(|token| token.trim().into()),
        })
    }

    fn get(&self, path: &str) -> Result<Response<Body>, Box<dyn Error>> {
        let request = self.agent.get(self.url(path));
        self.check(self.authorise(request).call())
    }

    fn post(&self, path: &str) -> Result<Response<Body>, Box<dyn Error>> {
        let request = self.agent.post(self.url(path));
        self.check(self.authorise(request).send_empty())
    }

    fn put(&self, path: &str, bytes: &[u8]) -> Result<Response<Body>, Box<dyn Error>> {
        let request = self.agent.put(self.url(path));
        self.check(self.authorise(request).send(bytes))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address.0)
    }

    fn authorise<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn check(
        &self,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Box<dyn Error>> {
        const MAX_REASON_BYTES: u64 = 4096;
        let address = &self.address.0;
        let mut response = response.map_err(|error| format!("{address}: {error}"))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let reason = response.body_mut().with_config().limit(MAX_REASON_BYTES);
        let reason = reason.lossy_utf8(true).read_to_string().unwrap_or_default();
        let reason = Escaped::new(reason.trim()).at_most(256).to_string();
        Err(format!("{address} says {}: {reason}", response.status()).into())
    }
}

fn hold_of(response: &Response<Body>) -> Result<u64, Box<dyn Error>> {
    let hold = response.headers().get("stateroom-hold");
    let hold = hold.and_then(|hold| hold.to_str().ok()?.parse().ok());
    hold.ok_or_else(|| "the server does not say by what number it holds the room".into())
}

fn read(mut response: Response<Body>) -> Result<Vec<u8>, Box<dyn Error>> {
    let body = response.body_mut().with_config().limit(MAX_ROOM_BYTES);
    Ok(body.read_to_vec()?)
}
