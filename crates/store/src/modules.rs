//! The table of modules: those that rooms have, or had.

use crate::writer::is_corrupt;
use rusqlite::{Connection, OptionalExtension};
use stateroom_wasmi_host::{ModuleHash, SnapshotInfo};
use std::collections::HashSet;

/// Adds a module, unless it is there and whole.
pub(crate) fn keep(connection: &Connection, hash: ModuleHash, wasm: &[u8]) -> rusqlite::Result<()> {
    match load(connection, hash) {
        Ok(Some(kept)) if kept == wasm => return Ok(()),
        Err(error) if !is_corrupt(&error) => return Err(error),
        _ => {}
    }
    let sql = "INSERT OR REPLACE INTO modules (hash, wasm) VALUES (?1, ?2)";
    connection.execute(sql, (hash.0, wasm)).map(drop)
}

pub(crate) fn load(connection: &Connection, hash: ModuleHash) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT wasm FROM modules WHERE hash = ?1";
    connection
        .query_row(sql, [hash.0], |row| row.get(0))
        .optional()
}

/// Removes the modules that no room has; returns how many.
pub(crate) fn remove_unused(connection: &Connection) -> rusqlite::Result<usize> {
    let mut used = HashSet::new();
    let mut statement = connection.prepare("SELECT snapshot FROM rooms")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // What is damaged names no module.
        let snapshot = row.get_ref(0)?.as_blob().unwrap_or_default();
        used.extend(SnapshotInfo::read(snapshot).ok().map(|info| info.module.0));
    }
    let mut statement = connection.prepare("SELECT hash FROM modules")?;
    let kept = statement.query_map([], |row| row.get::<_, [u8; 32]>(0))?;
    let unused: Vec<_> = kept
        .filter(|hash| !matches!(hash, Ok(hash) if used.contains(hash)))
        .collect::<Result<_, _>>()?;
    for hash in &unused {
        connection.execute("DELETE FROM modules WHERE hash = ?1", [hash])?;
    }
    Ok(unused.len())
}
