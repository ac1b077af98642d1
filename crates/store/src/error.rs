//! Why a store cannot be used.

use core::fmt;
use stateroom_wasmi_server::journal::JournalError;
use std::{error::Error, io};

/// Why a store cannot be opened, read or changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder, or a file of it, cannot be used.
    Folder(io::Error),
    /// Another process has the store open.
    Locked,
    /// There is no store in the folder.
    None,
    /// The database is not that of a store.
    Foreign,
    /// The store was written by another version.
    Version(i64),
    /// What is stored is damaged: what is wrong.
    Damaged(String),
    /// There is no room of this id.
    UnknownRoom,
    /// There is a room of this id already.
    RoomExists,
    /// The store has not done what was asked.
    Journal(JournalError),
    /// SQLite has failed.
    Database(rusqlite::Error),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(_) => f.write_str("the folder cannot be used"),
            Self::Locked => f.write_str("another process has the store open"),
            Self::None => f.write_str("there is no store in the folder"),
            Self::Foreign => f.write_str("rooms.sqlite is not the database of a store"),
            Self::Version(version) => {
                write!(
                    f,
                    "the store has version {version}, and this program knows "
                )?;
                write!(f, "version {}", crate::schema::VERSION)
            }
            Self::Damaged(what) => write!(f, "the store is damaged: {what}"),
            Self::UnknownRoom => f.write_str("there is no such room"),
            Self::RoomExists => f.write_str("there is a room of this id already"),
            Self::Journal(_) => f.write_str("the store has refused it"),
            Self::Database(_) => f.write_str("the database has failed"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Folder(error) => Some(error),
            Self::Journal(error) => Some(error),
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}
