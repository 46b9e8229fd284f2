use std::collections::HashSet;

use futures_util::future::join_all;
use registry::testing::{Guard, Server, TestRegistry};

use super::*;

#[tokio::test]
async fn a_cold_range_costs_the_challenge_the_token_and_the_redirect_and_later_ranges_nothing_more() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    registry.guard(Guard::Anonymous);
    registry.redirect(true);
    let (client, repository, digest) =
        (setup.client(), registry.repository("a"), registry.put_blob(pattern(9999)));
    read(&client, &repository, &digest, 0..100).await.unwrap();
    assert_eq!(registry.requests().len(), 4);
    for at in 1..10 {
        read(&client, &repository, &digest, at * 100..at * 100 + 100).await.unwrap();
    }
    assert_eq!(registry.requests().len(), 13);
    let peers: HashSet<_> =
        registry.requests().iter().map(|request| (request.server == Server::Store, request.peer)).collect();
    // A connection that is not back in time may be replaced; one per request would be 13.
    assert!(peers.len() <= 4, "{peers:?}");
}

#[tokio::test]
async fn sixteen_connections_are_kept_for_the_next_sixteen_reads() {
    let (registry, setup) = (TestRegistry::start().await, Setup::new());
    let (client, repository, digest) =
        (setup.client(), registry.repository("a"), registry.put_blob(pattern(9999)));
    let burst = || join_all((0..16).map(|at| read(&client, &repository, &digest, at * 10..at * 10 + 10)));
    assert!(burst().await.iter().all(Result::is_ok));
    let peers = |registry: &TestRegistry| {
        registry.requests().iter().map(|request| request.peer).collect::<HashSet<_>>()
    };
    let first = peers(&registry);
    registry.forget_requests();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(burst().await.iter().all(Result::is_ok));
    let new = peers(&registry).difference(&first).count();
    assert!(new <= 4, "{new} new connections");
}
