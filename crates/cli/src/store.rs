//! `stateroom-wasmi store`: what `serve --data` has kept.

use crate::print;
use clap::{Args, Subcommand};
use stateroom_wasmi_host::{Escaped, SnapshotInfo};
use stateroom_wasmi_server::journal::RoomFile;
use stateroom_wasmi_store::{Reader, RoomDetails, RoomState, Store, StoreError};
use std::{
    error::Error,
    fmt::Write,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Look into the rooms that `serve --data` keeps, and change them
///
/// `list`, `show` and `export` may run beside a server; the others may not.
#[derive(Args)]
pub(crate) struct StoreCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the rooms
    List {
        /// The folder of `serve --data`
        dir: PathBuf,
    },
    /// Show what is stored of a room
    Show {
        /// The folder of `serve --data`
        dir: PathBuf,
        /// The room's id
        room: String,
    },
    /// Write a room, with its events since its last snapshot, to a file
    Export {
        /// The folder of `serve --data`
        dir: PathBuf,
        /// The room's id
        room: String,
        /// The file
        file: PathBuf,
    },
    /// Add a room from a file of `export`
    Import {
        /// The folder of `serve --data`
        dir: PathBuf,
        /// The file
        file: PathBuf,
        /// Replace the room of the same id, if there is one, which is exported to this new file first
        #[arg(long, value_name = "OLD_FILE")]
        replace: Option<PathBuf>,
        /// Replace the room of the same id, and keep nothing of it: also one that is damaged, and so cannot
        /// be exported
        #[arg(long, conflicts_with = "replace")]
        discard: bool,
    },
    /// Remove the rooms that were not saved for a time
    Prune {
        /// The folder of `serve --data`
        dir: PathBuf,
        /// Days since they were saved
        #[arg(long, value_name = "DAYS")]
        older_than: u64,
    },
    /// Let a room that is in quarantine, or has lost events to damage, be restored again
    Release {
        /// The folder of `serve --data`
        dir: PathBuf,
        /// The room's id
        room: String,
    },
}

impl StoreCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        match self.command {
            Command::List { dir } => print(&list(&Reader::open(&dir)?.rooms()?))?,
            Command::Show { dir, room } => print(&show(&Reader::open(&dir)?, &room)?)?,
            Command::Export { dir, room, file } => {
                let exported = Reader::open(&dir)?.export(&room)?;
                fs::write(&file, exported.encode())
                    .map_err(|error| cannot("write", &file, &error))?;
            }
            Command::Import {
                dir,
                file,
                replace,
                discard,
            } => {
                let bytes = fs::read(&file).map_err(|error| cannot("read", &file, &error))?;
                let room = RoomFile::decode(&bytes);
                let room = room.ok_or("the file is not one of `store export`")?;
                // Nobody else writes as long as it is open.
                let store = Store::open(&dir)?;
                match replace {
                    Some(old_file) => {
                        export_old(&dir, &room.id, &old_file)?;
                        store.replace(&room)?;
                    }
                    None if discard => store.replace(&room)?,
                    None => store.import(&room).map_err(hint)?,
                }
            }
            Command::Prune { dir, older_than } => {
                let age = Duration::from_secs(older_than.saturating_mul(24 * 60 * 60));
                let removed = Store::prune(&dir, now().saturating_sub(age))?;
                print(&format!("removed {removed} rooms\n"))?;
            }
            Command::Release { dir, room } => Store::release(&dir, &room)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the room that is about to be replaced, if there is one, so that it is there after a power cut, too.
fn export_old(dir: &Path, id: &str, file: &Path) -> Result<(), Box<dyn Error>> {
    let old = match Reader::open(dir)?.export(id) {
        Err(StoreError::UnknownRoom) => return Ok(()),
        Err(error @ StoreError::Damaged(_)) => {
            let hint = "and cannot be exported; --discard replaces it all the same";
            return Err(format!("{error}, {hint}").into());
        }
        old => old?,
    };
    let write = || {
        // What is there is not overwritten: it may be what was exported before.
        let mut file = File::create_new(file)?;
        file.write_all(&old.encode())?;
        file.sync_all()
    };
    write().map_err(|error| cannot("write", file, &error).into())
}

fn hint(error: StoreError) -> Box<dyn Error> {
    match error {
        StoreError::RoomExists => {
            format!("{error}: --replace OLD_FILE exports it first, and then replaces it").into()
        }
        error => error.into(),
    }
}

fn cannot(what: &str, file: &Path, error: &dyn Error) -> String {
    format!("cannot {what} {:?}: {error}", Escaped::new(file.display()))
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn list(rooms: &[RoomDetails]) -> String {
    let mut text = String::new();
    for room in rooms {
        let _ = writeln!(
            text,
            "{:?}: {}, {} bytes, {} events and {} since, saved {} ago",
            Escaped::new(&room.id),
            state(&room.state),
            room.bytes,
            room.events,
            room.events_since,
            age(room.saved_at),
        );
    }
    let _ = writeln!(text, "{} rooms", rooms.len());
    text
}

fn state(state: &RoomState) -> String {
    match state {
        RoomState::Stored => "stored".into(),
        RoomState::Suspect { event, .. } => format!("suspect, for its event {event}"),
        RoomState::Quarantined(_) => "in quarantine".into(),
        _ => "damaged".into(),
    }
}

/// How long ago this was, in one unit.
fn age(time: Duration) -> String {
    let seconds = now().saturating_sub(time).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn show(reader: &Reader, id: &str) -> Result<String, Box<dyn Error>> {
    let rooms = reader.rooms()?;
    let room = rooms.into_iter().find(|room| *room.id == *id);
    let room = room.ok_or("there is no such room")?;
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn core::fmt::Display| {
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("room", &format!("{:?}", Escaped::new(&room.id)));
    line("state", &state(&room.state));
    match &room.state {
        RoomState::Quarantined(reason) | RoomState::Damaged(reason) => {
            line("reason", &Escaped::new(reason));
        }
        RoomState::Suspect { deaths, .. } => line("deaths", deaths),
        _ => {}
    }
    line("saved", &format!("{} ago", age(room.saved_at)));
    line("bytes", &room.bytes);
    line("events", &room.events);
    line(
        "since",
        &format!("{} events, {} bytes", room.events_since, room.bytes_since),
    );
    if let RoomState::Damaged(_) = room.state {
        return Ok(text);
    }
    let exported = reader.export(id)?;
    let info = SnapshotInfo::read(&exported.snapshot.room)?;
    line("module", &info.module);
    line("engine", &info.engine);
    line("state hash", &info.state_hash);
    line("room time", &info.now);
    Ok(text)
}
