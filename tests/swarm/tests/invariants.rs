//! What must hold of every swarm, whatever chance brings. Times are virtual, so these do not depend on the machine.
#![allow(clippy::print_stdout, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use swarm::{Outcome, Scene, run};

fn scene(seed: u64) -> Scene {
    Scene { nodes: 32, pieces: 100, seed, ..Scene::default() }
}

/// Runs a scene with several seeds, names the one that fails.
fn with_seeds(scene: impl Fn(u64) -> Scene, check: impl Fn(&Scene, &Outcome)) {
    for seed in 1..=5 {
        let scene = scene(seed);
        let outcome = run(&scene);
        println!("seed {seed}: last {:.2} s, {:.3} copies", outcome.last(), outcome.origin_copies());
        assert_eq!(outcome.unfinished, 0, "seed {seed}: all who live finish");
        check(&scene, &outcome);
    }
}

fn alone(scene: &Scene) -> f64 {
    run(&Scene { nodes: 1, slow: 0, killed: 0, ..scene.clone() }).last()
}

#[test]
fn each_piece_leaves_the_origin_once_and_nobody_waits_long() {
    with_seeds(scene, |scene, outcome| {
        assert!(outcome.origin_copies() <= 1.05);
        assert!(outcome.last() <= alone(scene) * 1.25);
    });
}

#[test]
fn a_weak_origin_is_enough() {
    with_seeds(
        |seed| Scene { origin_rate: 25e6, ..scene(seed) },
        |scene, outcome| {
            assert!(outcome.origin_copies() <= 1.05);
            assert!(outcome.last() <= alone(scene) * 1.35);
        },
    );
}

#[test]
fn slow_nodes_slow_the_others_little() {
    with_seeds(
        |seed| Scene { slow: 2, ..scene(seed) },
        |scene, outcome| {
            let healthy = run(&Scene { slow: 0, ..scene.clone() });
            assert!(outcome.quantile(0.99) <= healthy.quantile(0.99) * 1.25);
            assert!(outcome.origin_copies() <= 1.2);
        },
    );
}

#[test]
fn nodes_that_die_cost_the_others_little() {
    with_seeds(
        |seed| Scene { killed: 4, ..scene(seed) },
        |scene, outcome| {
            let healthy = run(&Scene { killed: 0, ..scene.clone() });
            assert!(outcome.last() <= healthy.last() * 1.25);
            assert!(outcome.origin_copies() <= 1.2);
        },
    );
}

#[test]
fn lazy_readers_of_a_known_order_share_one_copy_of_what_they_read() {
    with_seeds(
        |seed| Scene {
            order: (0..60).map(|place| place * 37 % 100).collect(),
            origin_rate: 25e6,
            ..scene(seed)
        },
        |scene, outcome| {
            assert!(outcome.origin_copies() <= 1.1);
            assert!(outcome.last() <= alone(scene) * 2.0);
        },
    );
}
