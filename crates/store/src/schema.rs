//! The database: its tables, and whether it is one of this version.

use crate::error::StoreError;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::{fs::File, path::Path, time::Duration};

/// The version of the tables.
pub(crate) const VERSION: i64 = 2;

/// Says that a database is a store: `SRRM`, as SQLite's application id.
const APPLICATION: i64 = 0x5352_524d;

pub(crate) const FILE: &str = "rooms.sqlite";

/// `rooms` has what `RoomSnapshot` has. `checksum` is the CRC-32 of what [`crate::rooms::checksum`] says.
/// `deaths` counts how often a process has ended in a row while it replayed the room's event `fatal_event`.
/// Times are milliseconds since the Unix epoch.
///
/// `tails` has the events that rooms needed of the log when the store was opened, with their CRC-32. If some
/// were damaged, `damage` says so.
///
/// `log` has a row for each transaction with events since, in the format of `LogEntries`. `rooms` are the numbers
/// of their rooms, so that a damaged row says which rooms it harms; each column ends with its CRC-32.
///
/// `modules` has the modules of rooms, by their SHA-256. It is created when a store is opened that has none.
const TABLES: &str = "
    CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE rooms (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        events INTEGER NOT NULL,
        snapshot BLOB NOT NULL,
        clients BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        wake_at INTEGER,
        saved_at INTEGER NOT NULL,
        deaths INTEGER NOT NULL DEFAULT 0,
        fatal_event INTEGER,
        quarantine TEXT
    ) STRICT;
    CREATE TABLE tails (
        room INTEGER PRIMARY KEY,
        events BLOB NOT NULL,
        damage TEXT
    ) STRICT;
    CREATE TABLE log (
        n INTEGER PRIMARY KEY,
        events BLOB NOT NULL,
        rooms BLOB NOT NULL
    ) STRICT;
";

const MODULES: &str = "
    CREATE TABLE IF NOT EXISTS modules (
        hash BLOB PRIMARY KEY,
        wasm BLOB NOT NULL
    ) STRICT;
";

/// Opens the database to be written, and creates it if there is none.
pub(crate) fn open(folder: &Path) -> Result<Connection, StoreError> {
    check_files(folder)?;
    let connection = Connection::open(folder.join(FILE))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // Before anything is changed.
    let is_new = check(&connection)?;
    // Only Apple's systems know the difference: what was synchronised otherwise may be in the drive's cache
    // there, and is lost with the power.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Bounds the file of the write-ahead log, which otherwise stays as long as it once was.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    if is_new {
        create(&connection)?;
    }
    connection.execute_batch(MODULES)?;
    Ok(connection)
}

/// Opens the database to be written, if there is one.
pub(crate) fn open_existing(folder: &Path) -> Result<Connection, StoreError> {
    match folder.join(FILE).is_file() {
        true => open(folder),
        false => Err(StoreError::None),
    }
}

/// Opens the database to be read.
pub(crate) fn open_to_read(folder: &Path) -> Result<Connection, StoreError> {
    check_files(folder)?;
    let path = folder.join(FILE);
    if !path.is_file() {
        return Err(StoreError::None);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    match check(&connection)? {
        true => Err(StoreError::None),
        false => Ok(connection),
    }
}

/// Makes all durable that can be read. A process that was killed may have written what it has not synchronised,
/// and clients are about to see it.
pub(crate) fn sync(folder: &Path, connection: &Connection) -> rusqlite::Result<()> {
    // A transaction synchronises all of the write-ahead log, if it changes something: to write the same value
    // again does not.
    let openings = read_meta(connection, "openings")?.and_then(|bytes| bytes.try_into().ok());
    let openings = openings.map_or(0, u64::from_le_bytes).wrapping_add(1);
    write_meta(connection, "openings", &openings.to_le_bytes())?;
    sync_folder(folder);
    Ok(())
}

/// Makes sure that the folder has its files, and its parent has the folder, after a power cut. SQLite does so
/// for a file that it creates, but the process may be killed in between, and the next one finds the file there.
fn sync_folder(folder: &Path) {
    // Windows cannot; some file systems do not.
    if cfg!(unix) {
        for folder in [folder, &folder.join("..")] {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            if let Err(error) = synced {
                log::debug!("cannot synchronise a folder: {error}");
            }
        }
    }
}

/// SQLite would delete a write-ahead log whose database is empty, and what is in it.
fn check_files(folder: &Path) -> Result<(), StoreError> {
    let length = |name: &str| folder.join(name).metadata().map_or(0, |file| file.len());
    match (length(FILE), length("rooms.sqlite-wal")) {
        (0, 1..) => Err(StoreError::Damaged(
            "rooms.sqlite is empty, though its write-ahead log is not".into(),
        )),
        _ => Ok(()),
    }
}

/// Whether the database is empty; an error if it is not one of this version.
fn check(connection: &Connection) -> Result<bool, StoreError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = match pragma("application_id") {
        Err(error) if is_no_database(&error) => return Err(StoreError::Foreign),
        application => application?,
    };
    let version = pragma("user_version")?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(true),
        (APPLICATION, VERSION) => Ok(false),
        (APPLICATION, version) => Err(StoreError::Version(version)),
        _ => Err(StoreError::Foreign),
    }
}

fn create(connection: &Connection) -> Result<(), StoreError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| StoreError::Folder(error.into()))?;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    write_meta(&transaction, "secret", &secret)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

pub(crate) fn write_meta(
    connection: &Connection,
    name: &str,
    value: &[u8],
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO meta (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?;
    statement.execute((name, value)).map(drop)
}

pub(crate) fn read_meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()
}

fn is_no_database(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase)
}
