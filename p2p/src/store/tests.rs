mod crowded;
mod killed;
pub(crate) mod lossy;
mod room;

use std::os::unix::fs::MetadataExt as _;

use super::*;

const LEN: usize = PieceLayout::MIN_SIZE as usize;
const PLENTY: Budget = Budget { bytes: u64::MAX, keep_free: 0 };
const LIAR: crate::NodeId = crate::NodeId([9; 32]);

fn layout(pieces: u32) -> PieceLayout {
    PieceLayout::new(u64::from(pieces) * LEN as u64, PieceLayout::MIN_SIZE).unwrap()
}

fn vouch(blob: &[u8; 32]) -> Vouch<'_> {
    Vouch::Whole { blob }
}

/// What a piece holds, of every task.
fn bytes(piece: PieceIndex) -> Vec<u8> {
    blake3::Hasher::new().update(&piece.get().to_le_bytes()).finalize_xof_bytes(LEN)
}

trait Stretched {
    fn finalize_xof_bytes(&self, len: usize) -> Vec<u8>;
}

impl Stretched for blake3::Hasher {
    fn finalize_xof_bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.finalize_xof().fill(&mut bytes);
        bytes
    }
}

fn open(dir: &tempfile::TempDir, pieces: u64) -> Store {
    Store::open(dir.path(), Budget { bytes: pieces * LEN as u64, keep_free: 0 }).unwrap()
}

fn fill(
    store: &Store,
    stored: &Arc<Stored>,
    pieces: impl IntoIterator<Item = u32>,
) -> Result<(), StoreError> {
    for number in pieces {
        let piece = stored.layout().piece(number).unwrap();
        assert!(store.put(stored, piece, &bytes(piece), Standing::Good)?);
    }
    Ok(())
}

#[test]
fn pieces_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let stored = store.task(vouch(&[1; 32]), layout(5)).unwrap();
    fill(&store, &stored, [0, 3]).unwrap();
    drop((stored, store));
    let store = open(&dir, 10);
    assert_eq!((store.known().len(), store.bytes()), (1, 2 * LEN as u64));
    let stored = store.task(vouch(&[1; 32]), layout(5)).unwrap();
    let piece = |number| stored.layout().piece(number).unwrap();
    assert!(stored.good().iter().eq([0, 3].map(piece)));
    assert_eq!(stored.read(piece(3)).unwrap(), bytes(piece(3)));
    assert!(matches!(stored.read(piece(1)), Err(StoreError::Missing(1))));
    let mut part = [0; 10];
    stored.read_at(&mut part, 3 * LEN as u64 + 5).unwrap();
    assert_eq!(part, bytes(piece(3))[5..15]);
    assert!(stored.read_at(&mut part, 4 * LEN as u64 - 5).is_err(), "into the next, which is missing");
}

#[test]
fn provisional_pieces_are_read_but_do_not_survive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let stored = store.task(vouch(&[1; 32]), layout(5)).unwrap();
    let piece = |number| layout(5).piece(number).unwrap();
    let standing = Standing::Provisional(LIAR);
    for number in 0..3 {
        assert!(store.put(&stored, piece(number), &bytes(piece(number)), standing).unwrap());
    }
    assert!(!store.put(&stored, piece(0), &[0; LEN], standing).unwrap(), "the first stays");
    assert_eq!(stored.standing(piece(0)), Some(standing));
    assert_eq!(stored.read(piece(0)).unwrap(), bytes(piece(0)));
    assert!(
        store.put(&stored, piece(1), &bytes(piece(1)), Standing::Good).unwrap(),
        "a good one replaces it"
    );
    assert_eq!(stored.provisional(), [(piece(0), LIAR), (piece(2), LIAR)]);
    drop((stored, store));
    let store = open(&dir, 10);
    let stored = store.task(vouch(&[1; 32]), layout(5)).unwrap();
    assert!(stored.good().iter().eq([piece(1)]) && stored.provisional().is_empty());
    let data = dir.path().join(hex::encode(stored.task().as_bytes())).join("data");
    assert!(std::fs::metadata(data).unwrap().blocks() * 512 <= 2 * LEN as u64, "the disk has its room back");
}

#[test]
fn confirmed_pieces_survive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let stored = store.task(vouch(&[1; 32]), layout(2)).unwrap();
    for piece in layout(2).pieces() {
        store.put(&stored, piece, &bytes(piece), Standing::Provisional(LIAR)).unwrap();
    }
    store.confirm(&stored);
    assert!(stored.good().is_full());
    drop((stored, store));
    assert!(open(&dir, 10).task(vouch(&[1; 32]), layout(2)).unwrap().good().is_full());
}

#[test]
fn a_piece_that_was_taken_away_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let stored = store.task(vouch(&[1; 32]), layout(3)).unwrap();
    fill(&store, &stored, 0..3).unwrap();
    stored.files().flush().unwrap();
    let piece = layout(3).piece(1).unwrap();
    store.forget(&stored, piece).unwrap();
    store.forget(&stored, piece).unwrap();
    assert!(stored.standing(piece).is_none() && stored.read(piece).is_err());
    assert_eq!(store.bytes(), 2 * LEN as u64);
    drop((stored, store));
    let stored = open(&dir, 10).task(vouch(&[1; 32]), layout(3)).unwrap();
    assert_eq!(stored.good().iter().map(PieceIndex::get).collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn the_task_used_longest_ago_makes_room_and_one_in_use_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 6);
    let used = |number: u8| {
        // Times of use are told apart by milliseconds.
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 3 {
            std::thread::yield_now();
        }
        store.task(vouch(&[number; 32]), layout(9)).unwrap()
    };
    let first = used(1);
    fill(&store, &first, 0..2).unwrap();
    for number in [2, 3] {
        let stored = used(number);
        fill(&store, &stored, 0..2).unwrap();
    }
    drop(used(2));
    let fourth = used(4);
    fill(&store, &fourth, 0..1).unwrap();
    let tasks = |store: &Store| store.known().iter().filter(|known| known.bytes > 0).count();
    let has = |number: u8| {
        let task = TaskId::of(vouch(&[number; 32]));
        store.known().iter().any(|known| known.task == task)
    };
    assert!(has(1) && has(2) && !has(3) && has(4), "3 was used longest ago of those not in use");
    fill(&store, &fourth, 1..4).unwrap();
    assert!(has(1) && !has(2) && tasks(&store) == 2);
    let error = fill(&store, &fourth, 4..5).unwrap_err();
    assert!(matches!(error, StoreError::BudgetFull { .. }), "{error}");
    assert_eq!(store.bytes(), 6 * LEN as u64);
    drop(first);
    fill(&store, &fourth, 4..5).unwrap();
    assert!(!has(1));
}

#[test]
fn uses_are_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    for number in [1, 2, 3, 1] {
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 3 {
            std::thread::yield_now();
        }
        let stored = store.task(vouch(&[number; 32]), layout(3)).unwrap();
        stored.touch(std::time::SystemTime::now());
    }
    let order = |store: &Store| store.known().iter().map(|known| known.task).collect::<Vec<_>>();
    let before = order(&store);
    assert_eq!(before, [1, 3, 2].map(|number| TaskId::of(vouch(&[number; 32]))));
    drop(store);
    assert_eq!(order(&open(&dir, 10)), before);
}

#[test]
fn a_disk_that_is_full_refuses_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Budget { bytes: u64::MAX, keep_free: u64::MAX / 2 }).unwrap();
    let stored = store.task(vouch(&[1; 32]), layout(3)).unwrap();
    let error = fill(&store, &stored, 0..1).unwrap_err();
    assert!(
        matches!(error, StoreError::DiskFull { .. }) && error.to_string().contains("bytes free"),
        "{error}"
    );
    assert_eq!(store.bytes(), 0);
    store.set_budget(PLENTY);
    fill(&store, &stored, 0..1).unwrap();
    store.set_budget(Budget { bytes: u64::MAX, keep_free: u64::MAX / 2 });
    assert!(fill(&store, &stored, 1..2).is_err());
    let piece = layout(3).piece(0).unwrap();
    assert_eq!(stored.read(piece).unwrap(), bytes(piece), "what is there is still read");
}

#[test]
fn a_piece_of_another_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let layout = PieceLayout::new(LEN as u64 + 1, PieceLayout::MIN_SIZE).unwrap();
    let stored = store.task(vouch(&[1; 32]), layout).unwrap();
    let last = stored.layout().piece(1).unwrap();
    let error = store.put(&stored, last, &[0; 2], Standing::Good).unwrap_err();
    assert!(matches!(error, StoreError::Length { found: 2, expected: 1 }));
    assert!(store.put(&stored, last, &[0], Standing::Good).unwrap());
    assert_eq!(store.bytes(), 1);
}

#[test]
fn another_layout_replaces_a_task_that_nobody_uses() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let stored = store.task(vouch(&[1; 32]), layout(3)).unwrap();
    assert!(matches!(store.task(vouch(&[1; 32]), layout(4)), Err(StoreError::OtherLayout(_))));
    drop(stored);
    assert_eq!(store.task(vouch(&[1; 32]), layout(4)).unwrap().layout(), &layout(4));
}

#[test]
fn one_process_at_a_time_uses_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 1);
    assert!(matches!(Store::open(dir.path(), PLENTY), Err(StoreError::InUse(_))));
    drop(store);
    open(&dir, 1);
}

#[test]
fn what_is_not_whole_is_deleted_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let mut paths = Vec::new();
    for number in 1..=4 {
        let stored = store.task(vouch(&[number; 32]), layout(3)).unwrap();
        fill(&store, &stored, 0..1).unwrap();
        paths.push(dir.path().join(hex::encode(stored.task().as_bytes())));
    }
    drop(store);
    std::fs::create_dir(dir.path().join(".new-1")).unwrap();
    std::fs::rename(&paths[0], dir.path().join(".gone-2")).unwrap();
    std::fs::write(paths[1].join("meta.json"), "{}").unwrap();
    std::fs::write(paths[2].join("data"), "short").unwrap();
    let store = open(&dir, 10);
    assert_eq!(store.known().len(), 1);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.len() == 2 && left.contains(&paths[3]), "{left:?}");
}

#[test]
fn a_task_that_was_removed_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let stored = store.task(vouch(&[1; 32]), layout(3)).unwrap();
    assert!(!store.remove(stored.task()), "in use");
    let task = stored.task();
    drop(stored);
    assert!(store.remove(task) && store.known().is_empty() && !store.remove(task));
}

#[test]
fn many_tasks_do_not_hold_as_many_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 2000);
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for number in 0..300_u32 {
        let mut blob = [0; 32];
        blob[..4].copy_from_slice(&number.to_le_bytes());
        let stored = store.task(vouch(&blob), layout(1)).unwrap();
        if number == 0 {
            fill(&store, &stored, 0..1).unwrap();
            stored.files().flush().unwrap();
        }
    }
    assert!(count() < 400, "{}", count());
    assert_eq!(store.known().len(), 300);
    assert_eq!(store.bytes(), LEN as u64);
}
