//! A process that fills a store is killed at any instant; what the store trusts afterwards is right.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::*;

const DIRECTORY: &str = "SHOAL_TEST_KILLED_STORE";
const ROUNDS: u64 = 30;
const PIECES: u32 = 200;

/// Fills the store until it is killed; does nothing where it is not the child of the test below.
#[test]
fn child_that_fills_a_store() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = Store::open(Path::new(&directory), PLENTY).unwrap();
    println!("filling");
    // Several tasks, so that making one is killed as well.
    for number in 0_u8.. {
        let stored = store.task(vouch(&[number; 32]), layout(PIECES)).unwrap();
        for piece in stored.layout().pieces() {
            // Garbage first, where a liar sent it: it must never come to be trusted.
            if piece.get() % 5 == 0 {
                store.put(&stored, piece, &vec![0xff; LEN], Standing::Provisional(LIAR)).unwrap();
            }
            store.put(&stored, piece, &bytes(piece), Standing::Good).unwrap();
            if piece.get() % 7 == 0 {
                stored.files().flush().unwrap();
            }
            if piece.get() % 11 == 0 {
                store.forget(&stored, piece).unwrap();
                store.put(&stored, piece, &vec![0xff; LEN], Standing::Provisional(LIAR)).unwrap();
            }
        }
    }
}

#[test]
fn after_kill_9_at_any_instant_every_trusted_piece_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut most = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::killed::child_that_fills_a_store", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("filling")));
        let lifetime = Duration::from_micros(round * 7919 % 60_000);
        let begin = Instant::now();
        while begin.elapsed() < lifetime {
            std::thread::park_timeout(lifetime.saturating_sub(begin.elapsed()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        most = most.max(trusted(dir.path()));
    }
    assert!(most > 0, "no child lived long enough to store anything");
}

/// Opens the store as the next process does and checks every piece that it trusts; gives their number.
fn trusted(path: &Path) -> usize {
    let store = Store::open(path, PLENTY).unwrap();
    let mut trusted = 0;
    for known in store.known() {
        let Kept::Whole { blob } = known.kept else { panic!("{known:?}") };
        let stored = store.task(vouch(&blob), known.layout).unwrap();
        for piece in stored.good().iter() {
            assert_eq!(stored.read(piece).unwrap(), bytes(piece), "{piece:?} of {}", known.task);
            trusted += 1;
        }
        assert_eq!(stored.bytes(), stored.good().held() as u64 * LEN as u64);
    }
    trusted
}
