//! The models of others must keep their shape, or the table beside our policy says nothing: on one fixed scene each is
//! about as fast as the study found, and takes about as much from the origin.
#![allow(clippy::print_stdout, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::ops::RangeInclusive;

use swarm::{Rule, SlotOutcome, Slots, bound, play};

const SCENE: Slots = Slots { nodes: 1200, pieces: 50, origin: 20, rule: Rule::Tree, seed: 1 };

fn played(rule: Rule) -> SlotOutcome {
    play(&Slots { rule, ..SCENE }).expect("every rule brings all pieces to all")
}

#[allow(clippy::cast_precision_loss, reason = "a few slots")]
fn check(rule: Rule, efficiency: RangeInclusive<f64>, copies: RangeInclusive<f64>) {
    let outcome = played(rule);
    let reached = bound(SCENE.nodes, SCENE.pieces, SCENE.origin) as f64 / outcome.last as f64;
    println!("{rule:?}: {outcome:?}, {reached:.2}");
    assert!(efficiency.contains(&reached), "{rule:?}: {reached:.2} of the bound");
    assert!(copies.contains(&outcome.origin_copies), "{rule:?}: {:.2} copies", outcome.origin_copies);
}

#[test]
fn a_tree_sends_two_copies_and_takes_twice_as_long_and_more() {
    check(Rule::Tree, 0.35..=0.42, 2.0..=2.0);
}

#[test]
fn three_parents_for_good_starve_some() {
    check(Rule::Dag, 0.58..=0.67, 3.0..=5.5);
}

#[test]
fn ten_connections_for_good_are_better() {
    check(Rule::Graph, 0.71..=0.79, 1.5..=8.0);
}

#[test]
fn changing_partners_are_better_the_more_there_are_but_take_many_copies() {
    check(Rule::Redrawn { partners: 4, once: false }, 0.69..=0.76, 20.0..=30.0);
    check(Rule::Redrawn { partners: 16, once: false }, 0.85..=0.92, 12.0..=25.0);
    check(Rule::Redrawn { partners: 32, once: false }, 0.88..=0.96, 10.0..=25.0);
}

#[test]
fn an_origin_that_gives_each_piece_once_costs_little_time() {
    check(Rule::Redrawn { partners: 16, once: true }, 0.82..=0.89, 1.0..=1.0);
    check(Rule::Redrawn { partners: 32, once: true }, 0.85..=0.92, 1.0..=1.0);
}
