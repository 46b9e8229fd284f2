//! A disk that takes pieces and does not keep them: a file system in a file on a full disk.

use std::{path::Path, process::Command};

use super::*;
use crate::scratch::{Disk, run};

/// A file system that promises more than the disk below it has.
pub(crate) struct Lossy {
    /// Unmounted first.
    top: Disk,
    below: Disk,
}

impl Lossy {
    pub(crate) fn new() -> Self {
        let below = Disk::new(16 << 20);
        let image = below.path().join("image");
        File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let mut make = Command::new("mkfs.ext4");
        run(make.args(["-q", "-F", "-O", "^has_journal", "-N", "128", "-E", "nodiscard"]).arg(&image));
        Self { top: Disk::of_image(&image), below }
    }

    pub(crate) fn path(&self) -> &Path {
        self.top.path()
    }

    /// From now on nothing new is kept.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.below.path().join("filler")).unwrap();
        let error = io::copy(&mut io::repeat(7), &mut filler).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    /// It has room again.
    pub(crate) fn mend(&self) {
        fs::remove_file(self.below.path().join("filler")).unwrap();
    }
}

#[test]
fn what_the_disk_did_not_keep_is_not_there_whatever_its_standing_and_comes_again() {
    let disk = Lossy::new();
    let directory = disk.path().join("pieces");
    let store = Store::open(&directory, PLENTY).unwrap();
    let stored = store.task(vouch(&[1; 32]), layout(40)).unwrap();
    let piece = |number| layout(40).piece(number).unwrap();
    fill(&store, &stored, 0..2).unwrap();
    stored.files().flush().unwrap();
    let kept = stored.good();

    disk.fill();
    fill(&store, &stored, 2..30).unwrap();
    assert!(store.put(&stored, piece(30), &bytes(piece(30)), Standing::Provisional(LIAR)).unwrap());
    let error = stored.files().flush().unwrap_err();
    assert!(error.to_string().starts_with("sync"), "{error}");
    assert_eq!(stored.good(), kept, "what was durable before stays");
    assert!(stored.provisional().is_empty(), "nobody knows whether it was kept");
    assert!(matches!(stored.read(piece(2)), Err(StoreError::Missing(2))));
    assert_eq!(store.bytes(), 2 * LEN as u64);

    disk.mend();
    fill(&store, &stored, 2..31).unwrap();
    stored.files().flush().unwrap();
    drop((stored, store));
    let stored = Store::open(&directory, PLENTY).unwrap().task(vouch(&[1; 32]), layout(40)).unwrap();
    assert_eq!(stored.good().held(), 31);
    for piece in stored.good().iter() {
        assert!(stored.read(piece).unwrap() == bytes(piece), "{piece:?}");
    }
}

#[test]
fn a_piece_that_is_being_written_while_the_disk_fails_is_not_believed() {
    let disk = Lossy::new();
    let store = Store::open(&disk.path().join("pieces"), PLENTY).unwrap();
    let stored = store.task(vouch(&[1; 32]), layout(40)).unwrap();
    let piece = layout(40).piece(39).unwrap();
    let mut place = stored.files().begin(piece, LEN, false).unwrap().unwrap();
    place.reserve();
    let before = place.put(&bytes(piece)).unwrap();
    disk.fill();
    fill(&store, &stored, 0..30).unwrap();
    assert!(stored.files().flush().is_err());
    assert!(matches!(place.end(before, Standing::Good), Err(StoreError::NotKept(_))));
    assert!(stored.standing(piece).is_none() && store.bytes() == 0);
}
