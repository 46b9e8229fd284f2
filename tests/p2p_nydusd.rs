//! Real nydusd over real nodes of the piece network, before a real registry. Needs root and FUSE.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

use std::{fs, thread, time::Duration};

use anyhow::{Result, ensure};
use integration_tests::{
    command::run,
    reader_bed::{FILES, ReaderBed as Bed, Share},
    registry::{PASSWORD, USER},
    relay::Link,
};
use nix::sys::signal::{Signal, kill};

#[test]
fn readers_on_three_nodes_take_one_copy_from_the_registry() -> Result<()> {
    let mut bed = Bed::start(3, Share::All, Link::DIRECT)?;
    bed.mount_all()?;
    (0..3).try_for_each(|node| bed.introduced(node))?;
    thread::scope(|scope| {
        let bed = &bed;
        let reads = [0, 1, 2].map(|node| scope.spawn(move || bed.read(node, 0..FILES)));
        reads.into_iter().try_for_each(|read| read.join().unwrap())
    })?;
    println!("three nodes read: {:.3} copies", bed.copies());
    ensure!(bed.copies() <= 1.1, "{} copies", bed.copies());
    Ok(())
}

#[test]
fn an_image_that_lists_no_pieces_spreads_too() -> Result<()> {
    let mut bed = Bed::start(3, Share::All, Link::DIRECT)?;
    bed.drop_lists()?;
    bed.mount_all()?;
    (0..3).try_for_each(|node| bed.introduced(node))?;
    thread::scope(|scope| {
        let bed = &bed;
        let reads = [0, 1, 2].map(|node| scope.spawn(move || bed.read(node, 0..FILES)));
        reads.into_iter().try_for_each(|read| read.join().unwrap())
    })?;
    println!("three nodes read an image without lists: {:.3} copies", bed.copies());
    ensure!(bed.copies() <= 1.1, "{} copies", bed.copies());
    let status = bed.nodes[1].status()?;
    let blobs = status["blobs"].as_array().unwrap();
    ensure!(blobs.iter().all(|blob| blob["checked_by"] == "chunks"), "{status}");
    Ok(())
}

#[test]
fn what_everybody_may_read_is_shared_without_being_listed() -> Result<()> {
    let mut bed = Bed::start(2, Share::Nothing, Link::DIRECT)?;
    bed.mount_all()?;
    // The registry is asked at mount; nobody reads before it has answered.
    (0..2).try_for_each(|node| bed.introduced(node))?;
    (0..2).try_for_each(|node| bed.read(node, 0..FILES))?;
    println!("two nodes read a public image: {:.3} copies", bed.copies());
    ensure!(bed.copies() <= 1.1, "{} copies", bed.copies());
    Ok(())
}

#[test]
fn a_p2pd_that_is_killed_in_mid_read_costs_its_reader_time_only() -> Result<()> {
    let slow = Link { round_trip: Duration::from_millis(2), bits_per_second: 100_000_000 };
    let mut bed = Bed::start(2, Share::All, slow)?;
    bed.mount_all()?;
    bed.introduced(0)?;
    bed.read_and(0, || bed.nodes[0].kill())?;
    // Its partner is none the worse.
    bed.read(1, 0..FILES)
}

#[test]
fn a_p2pd_that_stops_in_mid_read_costs_its_reader_time_only() -> Result<()> {
    let slow = Link { round_trip: Duration::from_millis(2), bits_per_second: 100_000_000 };
    let mut bed = Bed::start(2, Share::All, slow)?;
    bed.mount_all()?;
    bed.introduced(0)?;
    let stopped = bed.read_and(0, || Ok(kill(bed.nodes[0].pid(), Signal::SIGSTOP)?));
    kill(bed.nodes[0].pid(), Signal::SIGCONT)?;
    stopped?;
    bed.read(1, 0..FILES)
}

#[test]
fn bytes_that_rot_on_a_node_s_disk_cost_another_s_reader_time_only() -> Result<()> {
    read_beside_rot(&mut Bed::start(3, Share::All, Link::DIRECT)?)
}

#[test]
fn so_do_those_of_an_image_that_lists_no_pieces() -> Result<()> {
    let mut bed = Bed::start(3, Share::All, Link::DIRECT)?;
    bed.drop_lists()?;
    read_beside_rot(&mut bed)
}

fn read_beside_rot(bed: &mut Bed) -> Result<()> {
    bed.mount_all()?;
    (0..3).try_for_each(|node| bed.introduced(node))?;
    (0..2).try_for_each(|node| bed.read(node, 0..FILES))?;
    let rotten = bed.rot(0)?;
    bed.read(2, 0..FILES)?;
    let log = fs::read_to_string(bed.scratch.path().join("node-2/p2pd.log"))?;
    ensure!(rotten > 0 && log.contains("a piece is wrong"), "nobody met a rotten piece");
    ensure!(bed.copies() < 1.5, "{} copies: the good pieces came from the registry too", bed.copies());
    Ok(())
}

#[test]
fn a_private_repository_is_read_by_those_who_may_and_shared_with_nobody() -> Result<()> {
    let mut bed = Bed::start(2, Share::Nothing, Link::DIRECT)?;
    bed.registry.guard()?;
    let auth = auth();
    bed.mount(Some(&auth))?;
    bed.mount(Some(&auth))?;
    (0..2).try_for_each(|node| bed.read(node, 0..FILES))?;
    println!("two nodes read a private image: {:.3} copies", bed.copies());
    ensure!(bed.copies() >= 2.0, "{} copies: something was shared", bed.copies());
    for node in 0..2 {
        ensure!(bed.known(node)? == 0, "node {node} shares something");
    }
    Ok(())
}

#[test]
fn a_private_repository_that_is_listed_is_fetched_by_its_reader_s_credential() -> Result<()> {
    let mut bed = Bed::start(2, Share::All, Link::DIRECT)?;
    bed.registry.guard()?;
    let auth = auth();
    bed.mount(Some(&auth))?;
    bed.mount(Some(&auth))?;
    (0..2).try_for_each(|node| bed.introduced(node))?;
    (0..2).try_for_each(|node| bed.read(node, 0..FILES))?;
    println!("two nodes read a listed private image: {:.3} copies", bed.copies());
    ensure!(bed.copies() <= 1.1, "{} copies", bed.copies());
    // Nothing of it is kept or told.
    for node in 0..2 {
        let dir = bed.scratch.path().join(format!("node-{node}"));
        let found =
            run(integration_tests::command::command("grep", ["-raclF", "-e", &auth, "-e", PASSWORD_LINE])
                .arg(dir.join("p2pd.log"))
                .arg(dir.join("root/identity")));
        ensure!(found.is_err(), "the credential stands in a file of node {node}");
    }
    Ok(())
}

/// How a credential would look in a log.
const PASSWORD_LINE: &str = "password: \"pw\"";

fn auth() -> String {
    // Of "me:pw", as docker's configuration has it.
    assert_eq!((USER, PASSWORD), ("me", "pw"));
    "bWU6cHc=".to_owned()
}
