//! Which tasks there are, and which of them are in use.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Budget, Known, StoreError, files::Files, meta::Meta, stored::Stored};
use crate::TaskId;

/// Most tasks that are kept open while nobody uses them.
const OPEN: usize = 256;
/// Most tasks, with pieces or without, as long as some of them are not in use: each costs some blocks beside its pieces.
const TASKS: usize = 131_072;

#[derive(Debug)]
pub(super) struct Table {
    directory: PathBuf,
    entries: HashMap<TaskId, Entry>,
    budget: Budget,
    /// Bytes of the budget that others take.
    beside: u64,
    most_tasks: usize,
    most_open: usize,
    /// Tasks that were taken out so far: no two of them have one name while they are deleted.
    gone: u64,
}

/// Bytes of pieces.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Usage {
    /// All, those that are being written among them.
    pub(super) bytes: u64,
    /// Of tasks in use.
    pub(super) in_use: u64,
    /// Being written: the disk may have given them their room already, or not.
    pub(super) reserved: u64,
}

#[derive(Debug)]
struct Entry {
    meta: Meta,
    /// Bytes and last use, while it is not open.
    bytes: u64,
    used: SystemTime,
    open: Option<Arc<Stored>>,
}

impl Entry {
    /// Whether somebody has it. Nobody can get it while the table is locked.
    fn in_use(&self) -> bool {
        self.open.as_ref().is_some_and(|stored| Arc::strong_count(stored) > 1)
    }

    fn bytes(&self) -> u64 {
        self.open.as_ref().map_or(self.bytes, |stored| stored.bytes())
    }

    fn usage(&self) -> Usage {
        let (bytes, reserved) = self.open.as_ref().map_or((self.bytes, 0), |stored| stored.room());
        let bytes = bytes + reserved;
        Usage { bytes, in_use: if self.in_use() { bytes } else { 0 }, reserved }
    }

    fn used(&self) -> SystemTime {
        self.open.as_ref().map_or(self.used, |stored| stored.used().max(self.used))
    }
}

/// A task that nobody knows any more, whose files are to be deleted.
#[derive(Debug)]
pub(super) struct Removed {
    path: PathBuf,
    /// Of its pieces.
    pub(super) bytes: u64,
}

impl Removed {
    /// Takes a while; not to be done while the table is locked.
    pub(super) fn delete(self) {
        delete(&self.path);
    }
}

fn delete(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "cannot delete a task");
        }
        _ => {}
    }
}

impl Table {
    /// Reads what is in `directory`. What is not whole is deleted.
    pub(super) fn read(directory: &Path, budget: Budget) -> io::Result<Self> {
        let mut table = Self {
            directory: directory.to_owned(),
            entries: HashMap::new(),
            budget,
            beside: 0,
            most_tasks: TASKS,
            most_open: OPEN,
            gone: 0,
        };
        for found in fs::read_dir(directory)? {
            let path = found?.path();
            if !path.is_dir() {
                continue;
            }
            match read_task(&path) {
                Ok(entry) => _ = table.entries.insert(entry.meta.task, entry),
                Err(error) => {
                    tracing::info!(%error, path = %path.display(), "a task that cannot be read is deleted");
                    delete(&path);
                }
            }
        }
        Ok(table)
    }

    pub(super) fn known(&self) -> Vec<Known> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used()));
        let known = |entry: &Entry| {
            let Meta { task, layout, kept } = entry.meta.clone();
            Known { task, layout, kept, bytes: entry.bytes() }
        };
        entries.into_iter().map(known).collect()
    }

    /// Bytes of all pieces.
    pub(super) fn usage(&self) -> Usage {
        self.entries.values().map(Entry::usage).fold(Usage::default(), |sum, one| Usage {
            bytes: sum.bytes + one.bytes,
            in_use: sum.in_use + one.in_use,
            reserved: sum.reserved + one.reserved,
        })
    }

    pub(super) const fn budget(&self) -> Budget {
        self.budget
    }

    pub(super) fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    pub(super) const fn beside(&self) -> u64 {
        self.beside
    }

    pub(super) const fn set_beside(&mut self, bytes: u64) {
        self.beside = bytes;
    }

    /// Most bytes of pieces now.
    pub(super) fn most(&self) -> u64 {
        self.budget.beside(self.beside)
    }

    #[cfg(test)]
    pub(super) const fn set_most_tasks(&mut self, most: usize) {
        self.most_tasks = most;
    }

    #[cfg(test)]
    pub(super) const fn set_most_open(&mut self, most: usize) {
        self.most_open = most;
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, task: TaskId) -> PathBuf {
        self.directory.join(hex::encode(task.as_bytes()))
    }

    /// The task, if there is anything of it.
    pub(super) fn open(&mut self, task: TaskId) -> Result<Option<Arc<Stored>>, StoreError> {
        let path = self.path(task);
        let Some(entry) = self.entries.get_mut(&task) else { return Ok(None) };
        entry.used = SystemTime::now();
        if let Some(stored) = &entry.open {
            return Ok(Some(stored.clone()));
        }
        match Files::open(entry.meta.clone(), &path) {
            Ok(files) => {
                let stored = Arc::new(Stored::new(files));
                entry.open = Some(stored.clone());
                self.close_unused();
                Ok(Some(stored))
            }
            // Somebody has tampered with it: it begins anew.
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::InvalidData].contains(&error.kind()) => {
                tracing::warn!(%error, %task, "a task that cannot be read is deleted");
                self.take_out(task).into_iter().for_each(Removed::delete);
                Ok(None)
            }
            Err(source) => Err(StoreError::File { task, what: "open", source }),
        }
    }

    /// Makes a task that is not there.
    pub(super) fn create(&mut self, meta: Meta) -> Result<Arc<Stored>, StoreError> {
        let task = meta.task;
        let failed = |source| StoreError::File { task, what: "create", source };
        let path = self.path(task);
        if self.entries.len() >= self.most_tasks {
            self.take_out_first(|_| true).into_iter().for_each(Removed::delete);
        }
        // Under its name it is whole.
        let begun = self.directory.join(format!(".new-{}", hex::encode(task.as_bytes())));
        if begun.exists() {
            fs::remove_dir_all(&begun).map_err(failed)?;
        }
        fs::create_dir(&begun).map_err(failed)?;
        let stored = Arc::new(Stored::new(Files::create(meta.clone(), &begun).map_err(failed)?));
        fs::rename(&begun, &path).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        let entry = Entry { meta, bytes: 0, used: SystemTime::now(), open: Some(stored.clone()) };
        self.entries.insert(task, entry);
        self.close_unused();
        Ok(stored)
    }

    /// Takes a task out unless it is in use.
    pub(super) fn take_out(&mut self, task: TaskId) -> Option<Removed> {
        let bytes = self.entries.get(&task).filter(|entry| !entry.in_use())?.bytes();
        self.entries.remove(&task);
        self.gone += 1;
        let name = format!(".gone-{}-{}", self.gone, hex::encode(task.as_bytes()));
        let (path, gone) = (self.path(task), self.directory.join(name));
        // Under this name it is deleted at the next start if it is not before.
        if fs::rename(&path, &gone).is_err() {
            // At once, as it may be made anew under its own name as soon as the table is not locked.
            delete(&path);
        }
        Some(Removed { path: gone, bytes })
    }

    /// Takes out the task that was not used for the longest time, of those that have pieces.
    pub(super) fn take_out_oldest(&mut self) -> Option<Removed> {
        self.take_out_first(|entry| entry.bytes() > 0)
    }

    fn take_out_first(&mut self, may_go: impl Fn(&Entry) -> bool) -> Option<Removed> {
        let unused = self.entries.iter().filter(|(_, entry)| !entry.in_use() && may_go(entry));
        let (task, _) = unused.min_by_key(|(_, entry)| entry.used())?;
        self.take_out(*task)
    }

    /// Closes tasks that nobody uses, if many are open.
    fn close_unused(&mut self) {
        if self.entries.values().filter(|entry| entry.open.is_some()).count() <= self.most_open {
            return;
        }
        let directory = self.directory.clone();
        for entry in self.entries.values_mut().filter(|entry| !entry.in_use()) {
            let settled = entry.open.as_ref().filter(|stored| stored.files().is_settled());
            let Some(stored) = settled else { continue };
            entry.bytes = stored.files().release_unknown();
            entry.used = entry.used();
            entry.open = None;
            set_last_used(&directory.join(hex::encode(entry.meta.task.as_bytes())), entry.used);
        }
    }

    /// Notes for the next start when each task was used.
    pub(super) fn note_uses(&self) {
        for entry in self.entries.values().filter(|entry| entry.open.is_some()) {
            set_last_used(&self.path(entry.meta.task), entry.used());
        }
    }
}

/// Reads a task, and gives back to the disk what the process before did not know to be good.
fn read_task(path: &Path) -> io::Result<Entry> {
    let meta = Meta::read(&path.join("meta.json"))?;
    if path.file_name().and_then(|name| name.to_str()) != Some(&hex::encode(meta.task.as_bytes())) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "named otherwise than it is"));
    }
    let bytes = Files::open(meta.clone(), path)?.release_unknown();
    Ok(Entry { meta, bytes, used: last_used(path), open: None })
}

/// When a task that is not open was last used: kept as the time of its meta file.
fn last_used(directory: &Path) -> SystemTime {
    let modified = fs::metadata(directory.join("meta.json")).and_then(|meta| meta.modified());
    modified.unwrap_or(UNIX_EPOCH)
}

fn set_last_used(directory: &Path, used: SystemTime) {
    let set = File::options().write(true).open(directory.join("meta.json"));
    if let Err(error) = set.and_then(|file| file.set_modified(used)) {
        tracing::debug!(%error, "cannot note when a task was used");
    }
}
