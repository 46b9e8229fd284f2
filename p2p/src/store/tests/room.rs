//! What is evicted, and what is not.

use super::*;

fn task(store: &Store, number: u8, pieces: u32) -> Arc<Stored> {
    let stored = store.task(vouch(&[number; 32]), layout(9)).unwrap();
    fill(store, &stored, 0..pieces).unwrap();
    // Times of use are told apart by milliseconds.
    stored.touch(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000 + u64::from(number)));
    stored
}

fn has(store: &Store, number: u8) -> bool {
    let task = TaskId::of(vouch(&[number; 32]));
    store.known().iter().any(|known| known.task == task)
}

fn pieces(store: &Store) -> u64 {
    store.bytes() / LEN as u64
}

#[test]
fn what_others_take_of_the_budget_is_evicted_at_once_but_for_what_is_in_use_and_a_floor() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 32);
    let used = task(&store, 1, 3);
    (2..=5).for_each(|number| drop(task(&store, number, 5)));
    assert_eq!((store.trim().unwrap(), pieces(&store)), (0, 23));
    store.set_beside(12 * LEN as u64);
    assert_eq!(store.most(), 20 * LEN as u64);
    assert_eq!((store.trim().unwrap(), pieces(&store)), (1, 18));
    assert!(
        has(&store, 1) && !has(&store, 2) && has(&store, 3),
        "2 was used longest ago of those not in use"
    );
    store.set_beside(u64::MAX);
    assert_eq!(store.most(), 2 * LEN as u64, "a sixteenth");
    assert_eq!((store.trim().unwrap(), pieces(&store)), (3, 3), "what is in use stays");
    assert!(fill(&store, &used, 3..4).is_err());
    store.set_beside(0);
    fill(&store, &used, 3..9).unwrap();
}

#[test]
fn the_floor_is_small_where_the_budget_is_large() {
    let budget = Budget { bytes: 1 << 40, keep_free: 0 };
    assert_eq!(budget.beside(0), 1 << 40);
    assert_eq!(budget.beside(1 << 39), 1 << 39);
    assert_eq!(budget.beside(1 << 41), 256 << 20);
}

#[test]
fn a_disk_that_others_fill_has_room_back_without_a_put() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), PLENTY).unwrap();
    (1..=3).for_each(|number| drop(task(&store, number, 2)));
    store.set_budget(Budget { keep_free: u64::MAX, ..PLENTY });
    assert_eq!((store.trim().unwrap(), pieces(&store)), (3, 0));
}

#[test]
fn nothing_is_evicted_for_what_has_no_room_even_then() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 6);
    let used = task(&store, 1, 5);
    drop(task(&store, 2, 1));
    store.set_budget(Budget { bytes: 6 * LEN as u64 - 1, keep_free: 0 });
    let error = fill(&store, &used, 5..6).unwrap_err();
    assert!(matches!(error, StoreError::BudgetFull { .. }) && has(&store, 2), "{error}");
}

#[test]
fn a_piece_that_replaces_another_needs_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 1);
    let stored = store.task(vouch(&[1; 32]), layout(2)).unwrap();
    let piece = layout(2).piece(0).unwrap();
    assert!(store.put(&stored, piece, &[7; LEN], Standing::Provisional(LIAR)).unwrap());
    store.set_budget(Budget { bytes: 0, keep_free: u64::MAX });
    let me = crate::NodeId([1; 32]);
    assert!(store.replace(&stored, piece, &bytes(piece), me).unwrap());
    assert_eq!(stored.read(piece).unwrap(), bytes(piece));
    assert_eq!((stored.provisional(), pieces(&store)), (vec![(piece, me)], 1));
    assert!(store.put(&stored, piece, &bytes(piece), Standing::Good).unwrap());
    assert!(!store.replace(&stored, piece, &[7; LEN], me).unwrap(), "a good one stays");
    assert!(fill(&store, &stored, 1..2).is_err());
}

#[test]
fn a_task_evicted_twice_while_the_first_is_still_deleted_is_not_mixed_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let id = task(&store, 1, 2).task();
    let first = store.shared.table().take_out(id).unwrap();
    drop(task(&store, 1, 3));
    let second = store.shared.table().take_out(id).unwrap();
    let third = task(&store, 1, 4);
    [first, second].into_iter().for_each(table::Removed::delete);
    third.files().flush().unwrap();
    drop((third, store));
    assert_eq!(pieces(&open(&dir, 10)), 4);
}

#[test]
fn a_task_that_is_being_made_durable_is_not_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let stored = task(&store, 1, 2);
    stored.files().flush().unwrap();
    assert!(stored.files().is_settled());
    // As between taking what is dirty and writing its bits.
    let flushing = stored.files().map();
    assert!(!stored.files().is_settled());
    drop(flushing);
    fill(&store, &stored, 2..3).unwrap();
    stored.files().flush().unwrap();
    assert!(stored.files().is_settled());
}

#[test]
fn where_the_disk_does_not_forget_a_piece_nothing_else_is_written_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    let stored = task(&store, 1, 2);
    stored.files().flush().unwrap();
    let path = dir.path().join(hex::encode(stored.task().as_bytes())).join("map");
    let writable = std::mem::replace(&mut stored.files().map().file, File::open(path).unwrap());
    let piece = layout(9).piece(1).unwrap();
    assert!(store.forget(&stored, piece).is_err() && stored.standing(piece).is_none());
    // Else a restart would trust it.
    let garbage = Standing::Provisional(LIAR);
    assert!(store.put(&stored, piece, &[7; LEN], garbage).is_err() && pieces(&store) == 1);
    stored.files().map().file = writable;
    assert!(store.put(&stored, piece, &[7; LEN], garbage).unwrap());
    drop((stored, store));
    assert_eq!(pieces(&open(&dir, 10)), 1);
}

#[test]
fn there_are_not_more_tasks_than_a_bound_though_they_have_no_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 10);
    store.shared.table().set_most_tasks(3);
    let used = task(&store, 1, 0);
    (2..=5).for_each(|number| drop(task(&store, number, 0)));
    assert_eq!(store.known().len(), 3);
    assert!(has(&store, 1) && has(&store, 4) && has(&store, 5));
    drop(used);
}
