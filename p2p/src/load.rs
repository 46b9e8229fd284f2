//! The host's own load, as the kernel tells it (pressure stall information), and how far this node makes room for it.

mod pressure;

use std::{io, path::Path, time::Duration};

use tokio::{sync::watch, time::sleep};

pub use pressure::{Bounds, Judge, Percent};

use crate::peer::Hold;

/// Where the kernel tells it.
pub const PRESSURE: &str = "/proc/pressure";
/// Time between two looks: the kernel brings its averages up to date as often.
const LOOK: Duration = Duration::from_secs(2);

/// Looks again and again how much the host has to do, and says to `hold` how far what nobody waits for is held back.
/// Ends never; a kernel that does not tell is looked at once, and told of once.
pub async fn keep(directory: &Path, bounds: Bounds, hold: watch::Sender<Hold>) {
    let bounds =
        Bounds { cpu: told(directory, "cpu", bounds.cpu).await, io: told(directory, "io", bounds.io).await };
    if bounds == Bounds::NONE {
        return std::future::pending().await;
    }
    let mut judge = Judge::new(bounds);
    loop {
        let (cpu, io) = (look(directory, "cpu", bounds.cpu).await, look(directory, "io", bounds.io).await);
        let wanted = judge.judge(cpu, io);
        if hold.send_if_modified(|held| std::mem::replace(held, wanted) != wanted) {
            tracing::info!(?cpu, ?io, halvings = wanted.halvings(), "the host's load");
        }
        sleep(LOOK).await;
    }
}

/// The bound, if the kernel tells what it is for.
async fn told(directory: &Path, of: &str, bound: Option<Percent>) -> Option<Percent> {
    let bound = bound?;
    match read(directory, of).await {
        Ok(_) => Some(bound),
        Err(error) => {
            tracing::warn!(of, "this kernel does not tell how much waits ({error}): nothing yields to it");
            None
        }
    }
}

/// What it is now, where there is a bound for it. Nothing where it cannot be read: then nothing is known.
async fn look(directory: &Path, of: &str, bound: Option<Percent>) -> Option<f64> {
    bound?;
    read(directory, of).await.ok()
}

async fn read(directory: &Path, of: &str) -> io::Result<f64> {
    let text = tokio::fs::read_to_string(directory.join(of)).await?;
    pressure::some_avg10(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it says something else"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    fn write(directory: &Path, of: &str, percent: u32) {
        let line = |kind| format!("{kind} avg10={percent}.00 avg60=1.00 avg300=0.00 total=123\n");
        fs::write(directory.join(of), line("some") + &line("full")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn load_holds_back_and_its_end_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cpu", 95);
        let bounds = Bounds { cpu: "80".parse().ok(), io: "10".parse().ok() };
        let (sender, mut hold) = watch::channel(Hold::NONE);
        let keeping = keep(dir.path(), bounds, sender);
        let watching = async {
            hold.wait_for(|hold| *hold == Hold::MOST).await.unwrap();
            write(dir.path(), "cpu", 5);
            hold.wait_for(|hold| *hold == Hold::NONE).await.unwrap();
        };
        let looked = async {
            tokio::select! { () = keeping => {}, () = watching => {} }
        };
        timeout(Duration::from_secs(60), looked).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_kernel_that_does_not_tell_holds_nothing_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("io"), "nonsense").unwrap();
        let bounds = Bounds { cpu: "80".parse().ok(), io: "10".parse().ok() };
        let (sender, hold) = watch::channel(Hold::NONE);
        let ended = timeout(Duration::from_secs(60), keep(dir.path(), bounds, sender)).await;
        assert!(ended.is_err(), "it never ends");
        assert_eq!(*hold.borrow(), Hold::NONE);
    }
}
