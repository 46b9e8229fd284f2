//! Many threads, many tasks, little room: nothing is refused that there is room for, and no read is wrong.

use std::sync::{
    Barrier,
    atomic::{AtomicU64, Ordering},
};

use super::*;

/// Threads that each use one task at a time.
const THREADS: u64 = 6;
const PIECES: u32 = 4;
/// Kept open without being used: few, so that tasks are closed and opened again all the time.
const OPEN: usize = 10;
const TASKS: u64 = 24;
const STEPS: u64 = 200;

/// What a piece of a task holds.
fn bytes_of(task: u64, piece: PieceIndex) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&task.to_le_bytes()).update(&piece.get().to_le_bytes());
    hasher.finalize_xof_bytes(LEN)
}

fn blob(task: u64) -> [u8; 32] {
    let mut blob = [0; 32];
    blob[..8].copy_from_slice(&task.to_le_bytes());
    blob
}

#[test]
fn a_piece_counts_once_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..100 {
        let (store, barrier) = (open(&dir, THREADS), Barrier::new(6));
        let stored = store.task(vouch(&[1; 32]), layout(6)).unwrap();
        std::thread::scope(|scope| {
            for piece in stored.layout().pieces() {
                let (store, stored, barrier) = (&store, &stored, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    store.put(stored, piece, &bytes(piece), Standing::Good).expect("there is room for all");
                });
            }
        });
        assert!(stored.good().is_full());
        let task = stored.task();
        drop(stored);
        assert!(store.remove(task));
    }
}

/// Does something with a task; what is not refused must be right.
fn step(store: &Store, random: &mut fastrand::Rng, read: &AtomicU64) {
    let task = random.u64(..TASKS);
    let stored = store.task(vouch(&blob(task)), layout(PIECES)).unwrap();
    let liar = Standing::Provisional(LIAR);
    for _ in 0..6 {
        let piece = stored.layout().piece(random.u32(..PIECES)).unwrap();
        let right = bytes_of(task, piece);
        // Of tasks with an odd number, wrong pieces come as well.
        let doubtful = task % 2 == 1;
        match random.u32(..10) {
            0..4 => _ = store.put(&stored, piece, &right, Standing::Good).unwrap(),
            4 if doubtful => _ = store.put(&stored, piece, &vec![0xff; LEN], liar).unwrap(),
            4 => _ = store.put(&stored, piece, &right, liar).unwrap(),
            5 if doubtful => _ = store.replace(&stored, piece, &vec![0xfe; LEN], LIAR).unwrap(),
            5 => store.confirm(&stored),
            6 => store.forget(&stored, piece).unwrap(),
            _ => match stored.read(piece) {
                Ok(found) if doubtful && found[0] >= 0xfe && found != right => {
                    assert!(found.iter().all(|byte| *byte == found[0]), "half of one and half of another");
                }
                Ok(found) => {
                    assert!(found == right, "{piece:?} of task {task}");
                    read.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => assert!(matches!(error, StoreError::Missing(_)), "{error}"),
            },
        }
        assert!(store.bytes() <= store.most(), "more than the budget");
    }
}

#[test]
fn with_little_room_for_many_nothing_is_wrong_and_nothing_refused_in_vain() {
    let dir = tempfile::tempdir().unwrap();
    let read = AtomicU64::new(0);
    for seed in 0..3 {
        // All that may be in use at a time, and not a byte more.
        let store = open(&dir, THREADS * u64::from(PIECES));
        store.shared.table().set_most_open(OPEN);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (store, read) = (&store, &read);
                let mut random = fastrand::Rng::with_seed(seed * THREADS + thread);
                scope.spawn(move || (0..STEPS).for_each(|_| step(store, &mut random, read)));
            }
        });
        drop(store);
        // The next process trusts nothing that is wrong, and what it counts is what is there.
        let store = open(&dir, THREADS * u64::from(PIECES));
        for task in 0..TASKS {
            let stored = store.task(vouch(&blob(task)), layout(PIECES)).unwrap();
            for piece in stored.good().iter() {
                assert!(stored.read(piece).unwrap() == bytes_of(task, piece), "{piece:?} of task {task}");
            }
        }
        let good: u64 = store.known().iter().map(|known| known.bytes).sum();
        assert_eq!(store.bytes(), good);
        let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.filter(|name| name.to_string_lossy().starts_with('.')).count(), 0, "all was deleted");
    }
    assert!(read.into_inner() > 100, "hardly anything was read");
}
