//! A disk that loses its power: what is left of the files of a folder, by what was synchronised when.
//!
//! It takes nothing for granted that a disk or a file system might not do. What was not synchronised is
//! lost or not, in any order, and a sector of it may be neither old nor new. A file has been created, or
//! deleted, when its folder was synchronised. Two things it does not do: change bytes that were not written
//! (SQLite relies on that, and calls it *powersafe overwrite*), and lose what was synchronised.

mod vfs;

pub use self::vfs::Recorder;

use crate::support::Random;
use std::collections::BTreeMap;

/// Files by their names.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What happens to a folder.
#[derive(Clone, Debug)]
pub enum Step {
    /// A file is created. If it is a journal, its folder is synchronised with it, the first time.
    Create {
        name: String,
        is_journal: bool,
    },
    Write {
        name: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        name: String,
        length: usize,
    },
    /// A file is synchronised. If not in full, that only brings it to the drive's cache, as on Apple's
    /// systems: it is not durable.
    Sync {
        name: String,
        is_full: bool,
    },
    Delete {
        name: String,
        is_synced: bool,
    },
    SyncFolder,
    /// What a test has seen at this moment.
    Note(Note),
}

/// What a test notes between the steps.
#[derive(Clone, Debug)]
pub enum Note {
    /// The store was opened.
    Opened,
    /// So many batches are durable.
    Acknowledged(usize),
    /// A room was given a number.
    Numbered(u64),
    /// All of the store was read.
    Observed,
}

/// A folder on a disk. Its clones are other disks.
#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    /// What is left of the folder for certain.
    names: BTreeMap<String, usize>,
    /// Later changes of it.
    unsynced_names: Vec<(String, Option<usize>)>,
}

#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Whether its folder is synchronised with it.
    syncs_folder: bool,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// A disk writes so much or nothing, or garbage.
const SECTOR: usize = 512;

impl Disk {
    /// A disk with these files.
    pub fn of(files: Files) -> Self {
        let mut disk = Self::default();
        for (index, (name, synced)) in files.into_iter().enumerate() {
            disk.files.push(File {
                synced,
                ..File::default()
            });
            disk.names.insert(name, index);
        }
        disk
    }

    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Create { name, is_journal } => {
                self.files.push(File {
                    syncs_folder: *is_journal,
                    ..File::default()
                });
                let created = Some(self.files.len() - 1);
                self.unsynced_names.push((name.clone(), created));
            }
            Step::Write {
                name,
                offset,
                bytes,
            } => {
                let (offset, bytes) = (*offset, bytes.clone());
                let file = self.file(name);
                file.unsynced.push(Change::Write { offset, bytes });
            }
            Step::Truncate { name, length } => {
                self.file(name).unsynced.push(Change::Truncate(*length));
            }
            Step::Sync { is_full: false, .. } => {}
            Step::Sync { name, .. } => {
                let file = self.file(name);
                file.sync();
                if core::mem::take(&mut file.syncs_folder) {
                    self.sync_folder();
                }
            }
            Step::Delete { name, is_synced } => {
                self.unsynced_names.push((name.clone(), None));
                if *is_synced {
                    self.sync_folder();
                }
            }
            Step::SyncFolder => self.sync_folder(),
            Step::Note(_) => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        let names = names(&self.names, &self.unsynced_names);
        &mut self.files[names[name]]
    }

    fn sync_folder(&mut self) {
        self.names = names(&self.names, &self.unsynced_names);
        self.unsynced_names.clear();
    }

    /// The files as those see them who have not lost their power.
    pub fn files(&self) -> Files {
        let content = |file: usize| {
            let mut file = self.files[file].clone();
            file.sync();
            file.synced
        };
        let names = names(&self.names, &self.unsynced_names);
        names
            .into_iter()
            .map(|(name, file)| (name, content(file)))
            .collect()
    }

    /// What is left of them when the power is lost now.
    pub fn lose_power(&self, random: &mut Random) -> Files {
        let mut names = self.names.clone();
        let mut changed: Vec<&str> = Vec::new();
        for (name, _) in &self.unsynced_names {
            if !changed.contains(&&**name) {
                changed.push(name);
            }
        }
        for name in changed {
            let changes: Vec<_> = self
                .unsynced_names
                .iter()
                .filter(|(changed, _)| changed == name)
                .collect();
            if let Some(last) = random.below(changes.len() + 1).checked_sub(1) {
                apply_name(&mut names, changes[last]);
            }
        }
        names
            .into_iter()
            .map(|(name, file)| (name, self.files[file].lose_power(random)))
            .collect()
    }
}

fn names(
    synced: &BTreeMap<String, usize>,
    unsynced: &[(String, Option<usize>)],
) -> BTreeMap<String, usize> {
    let mut names = synced.clone();
    for change in unsynced {
        apply_name(&mut names, change);
    }
    names
}

fn apply_name(names: &mut BTreeMap<String, usize>, (name, file): &(String, Option<usize>)) {
    match file {
        Some(file) => drop(names.insert(name.clone(), *file)),
        None => drop(names.remove(name)),
    }
}

impl File {
    fn sync(&mut self) {
        for change in core::mem::take(&mut self.unsynced) {
            match change {
                Change::Truncate(length) => self.synced.resize(length, 0),
                Change::Write { offset, bytes } => write(&mut self.synced, offset, &bytes, 0),
            }
        }
    }

    fn lose_power(&self, random: &mut Random) -> Vec<u8> {
        let mut left = self.synced.clone();
        let mut changes: Vec<&Change> = self.unsynced.iter().collect();
        if random.below(2) == 0 {
            shuffle(&mut changes, random);
        }
        // Of eight changes, so many are lost, and so many are torn.
        let (lost, torn) = match random.below(4) {
            0 => (8, 0),
            1 => (0, 0),
            2 => (0, 8),
            _ => (2, 4),
        };
        // What nobody has written is zero, or what was there before in another file.
        let hole = [0, random.next() as u8][random.below(2)];
        let longest = changes.iter().map(|change| change.end()).max();
        for change in changes {
            let fate = random.below(8);
            if fate < lost {
                continue;
            }
            match change {
                Change::Truncate(length) => left.resize(*length, hole),
                Change::Write { offset, bytes } if fate < lost + torn => {
                    tear(&mut left, *offset, bytes, hole, random);
                }
                Change::Write { offset, bytes } => write(&mut left, *offset, bytes, hole),
            }
        }
        // The length of a file may be kept before its bytes are.
        if let Some(longest) = longest
            && longest > left.len()
            && random.below(4) == 0
        {
            left.resize(longest, hole);
        }
        left
    }
}

impl Change {
    fn end(&self) -> usize {
        match self {
            Self::Write { offset, bytes } => offset + bytes.len(),
            Self::Truncate(length) => *length,
        }
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8], hole: u8) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, hole);
    }
    file[offset..end].copy_from_slice(bytes);
}

/// Writes, loses or spoils each sector by itself.
fn tear(file: &mut Vec<u8>, offset: usize, bytes: &[u8], hole: u8, random: &mut Random) {
    let mut at = 0;
    while at < bytes.len() {
        let length = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
        match random.below(3) {
            0 => write(file, offset + at, &bytes[at..at + length], hole),
            1 => write(file, offset + at, &random.bytes(length), hole),
            _ => {}
        }
        at += length;
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}
