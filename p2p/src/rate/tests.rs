use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::*;

const MIB: u64 = 1 << 20;

fn rate(bytes: u64) -> Rate {
    Rate::per_second(NonZeroU64::new(bytes).unwrap())
}

fn weight(weight: u32) -> NonZeroU32 {
    NonZeroU32::new(weight).unwrap()
}

/// Takes steps from a share for ever, and counts them.
fn taker(tasks: &mut JoinSet<()>, share: Share) -> Arc<AtomicU64> {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = taken.clone();
    tasks.spawn(async move {
        loop {
            share.take(STEP).await;
            counted.fetch_add(u64::from(STEP), Ordering::Relaxed);
        }
    });
    taken
}

fn about(found: &AtomicU64, expected: u64) {
    let found = found.load(Ordering::Relaxed);
    assert!(found.abs_diff(expected) <= expected / 50 + 2 * u64::from(STEP), "{found}, not {expected}");
}

#[tokio::test(start_paused = true)]
async fn shares_divide_the_host_rate_by_weight() {
    let (host, mut tasks) = (HostLimit::new(rate(8 * MIB)), JoinSet::new());
    let light = taker(&mut tasks, host.share(weight(1), Rate::UNLIMITED));
    let heavy = host.share(weight(3), Rate::UNLIMITED);
    // More takers of one share do not get more.
    let heavies: Vec<_> = (0..3).map(|_| taker(&mut tasks, heavy.clone())).collect();
    sleep(Duration::from_secs(10)).await;
    about(&light, 20 * MIB);
    heavies.iter().for_each(|taken| about(taken, 20 * MIB));
}

#[tokio::test(start_paused = true)]
async fn what_a_limited_share_leaves_goes_to_the_others() {
    let (host, mut tasks) = (HostLimit::new(rate(8 * MIB)), JoinSet::new());
    let limited = taker(&mut tasks, host.share(weight(100), rate(MIB)));
    let free = taker(&mut tasks, host.share(weight(1), Rate::UNLIMITED));
    sleep(Duration::from_secs(10)).await;
    about(&limited, 10 * MIB);
    about(&free, 70 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_share_that_was_idle_neither_catches_up_nor_starves() {
    let (host, mut tasks) = (HostLimit::new(rate(8 * MIB)), JoinSet::new());
    let busy = taker(&mut tasks, host.share(weight(1), Rate::UNLIMITED));
    let late = host.share(weight(1), Rate::UNLIMITED);
    sleep(Duration::from_secs(10)).await;
    let late = taker(&mut tasks, late);
    sleep(Duration::from_secs(10)).await;
    about(&busy, 120 * MIB);
    about(&late, 40 * MIB);
}

#[tokio::test(start_paused = true)]
async fn rates_change_for_those_who_wait() {
    let host = HostLimit::new(rate(1));
    let share = host.share(weight(1), rate(1));
    share.take(2 * STEP).await;
    let waiting = tokio::spawn({
        let share = share.clone();
        async move { share.take(STEP).await }
    });
    sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished());
    host.set_rate(Rate::UNLIMITED);
    sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished(), "its own limit still holds");
    share.set_rate(rate(MIB));
    timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn within_a_share_the_first_to_ask_is_the_first_to_go() {
    let host = HostLimit::new(rate(MIB));
    let share = host.share(weight(1), Rate::UNLIMITED);
    share.take(2 * STEP).await;
    let (order, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
    for number in 0..20 {
        let (share, order) = (share.clone(), order.clone());
        tasks.spawn(async move {
            share.take(STEP).await;
            order.lock().unwrap().push(number);
        });
        tokio::task::yield_now().await;
    }
    tasks.join_all().await;
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_hands_the_clock_on() {
    let host = HostLimit::new(rate(MIB));
    let share = host.share(weight(1), Rate::UNLIMITED);
    share.take(2 * STEP).await;
    let minder = tokio::spawn({
        let share = share.clone();
        async move { share.take(STEP).await }
    });
    tokio::task::yield_now().await;
    let waiting = tokio::spawn({
        let share = share.clone();
        async move { share.take(STEP).await }
    });
    tokio::task::yield_now().await;
    minder.abort();
    // One step's time, not two: what was given up was not taken.
    timeout(Duration::from_millis(70), waiting).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_limit_nobody_waits() {
    let share = HostLimit::new(Rate::UNLIMITED).share(weight(1), Rate::UNLIMITED);
    timeout(Duration::from_millis(1), share.take(u32::MAX)).await.unwrap();
}
