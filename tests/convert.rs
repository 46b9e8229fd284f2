//! Converting whole images: what comes out, that it is reproducible, and what is refused.
#![allow(clippy::unwrap_used, clippy::tests_outside_test_module, missing_docs, reason = "tests")]

#[path = "support/oci_layout.rs"]
mod oci_layout;
#[path = "support/rafs_content.rs"]
mod rafs_content;

use std::{collections::BTreeSet, sync::Arc};

use builder::{ConvertOptions, Platforms, convert::Silent};
use p2p_pieces::PieceList;
use registry::testing::{Fault, TestRegistry};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::oci_layout::{
    DOCKER, Layer, Layout, OCI, bootstrap_files, files, follow, gzip, image_tree, layers, one_image,
    read_json, sha256, tar_of,
};

#[test]
fn an_image_of_gzip_zstd_and_plain_layers_keeps_its_tree() {
    let layout = one_image();
    let report = layout.convert(layout.options("oci:DIR/out:v2")).unwrap();
    let out = layout.path("out");
    let index = read_json(&out.join("index.json"));
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "v2");
    let manifest = follow(&out, &index["manifests"][0]);
    assert_eq!(index["manifests"][0]["digest"], report.digest.as_str());
    let listing = rafs_content::list(&image_tree(&out, &manifest), &out.join("blobs/sha256"));
    let names: Vec<_> = listing.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["/lib", "/opt", "/opt/c", "/usr", "/usr/big", "/usr/lib", "/usr/lib/so", "/usr/more", "/usr/twin"]
    );
    assert!(listing["/lib"].ends_with("link to usr/lib") && listing["/opt/c"].ends_with("file c"));
    assert_eq!(listing["/usr/big"], listing["/usr/twin"]);
    assert!(listing["/usr/big"].starts_with("755 1000:1000 1600000000.000000000 file"));
}

#[test]
fn manifest_and_config_tell_what_snapshotters_look_for() {
    let layout = one_image();
    layout.convert(layout.options("oci:DIR/out")).unwrap();
    let out = layout.path("out");
    let manifest = follow(&out, &read_json(&out.join("index.json"))["manifests"][0]);
    let made = manifest["layers"].as_array().unwrap();
    assert_eq!(made.len(), 5);
    for blob in &made[..4] {
        assert_eq!(blob["mediaType"], "application/vnd.oci.image.layer.nydus.blob.v1");
        assert_eq!(blob["annotations"]["containerd.io/snapshot/nydus-blob"], "true");
    }
    assert_eq!(made[4]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(made[4]["annotations"]["containerd.io/snapshot/nydus-bootstrap"], "true");
    assert_eq!(made[4]["annotations"]["containerd.io/snapshot/nydus-fs-version"], "6");
    let config = follow(&out, &manifest["config"]);
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert!(diff_ids[..4].iter().zip(made).all(|(id, layer)| *id == layer["digest"]));
    assert_eq!(config["config"]["Healthcheck"]["Test"][0], "NONE", "fields that OCI does not know stay");
    assert_eq!(config["history"][1]["comment"], "Nydus Bootstrap Layer");
}

#[test]
fn the_bootstrap_layer_lists_the_pieces_of_each_blob_once() {
    let layout = Layout::new();
    // Too mixed up to be compressed, so that its blob has several pieces; twice, and one without content.
    let mixed: Vec<u8> = (0_u32..80_000).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect();
    let plain = tar_of(&[("mixed", tar::EntryType::Regular, &mixed)]);
    let mixed =
        || Layer { media_type: format!("{OCI}.layer.v1.tar"), stored: plain.clone(), plain: plain.clone() };
    let all = layers().into_iter().chain([mixed(), mixed()]).collect::<Vec<_>>();
    layout.tag(layout.image(&all, "amd64", false), "v1");
    layout.convert(layout.options("oci:DIR/out")).unwrap();
    let out = layout.path("out");
    let manifest = follow(&out, &read_json(&out.join("index.json"))["manifests"][0]);
    let mut files = bootstrap_files(&out, &manifest);
    let blobs = manifest["layers"].as_array().unwrap();
    let blobs: BTreeSet<_> =
        blobs[..6].iter().map(|blob| blob["digest"].as_str().unwrap()[7..].to_owned()).collect();
    assert_eq!(blobs.len(), 5);
    let mut most = 0;
    for hex in blobs {
        let list = files.remove(&format!("image/{hex}.pieces")).unwrap();
        let list = PieceList::decode(&list).unwrap();
        let blob = std::fs::read(out.join("blobs/sha256").join(&hex)).unwrap();
        assert_eq!((list.layout().len(), list.layout().piece_size()), (blob.len() as u64, 1 << 20));
        let mut pieces = blob.chunks(1 << 20);
        for piece in list.layout().pieces() {
            assert!(list.vouches_for(piece, pieces.next().unwrap()), "{piece:?} of {hex}");
        }
        most = most.max(list.layout().count().get());
    }
    assert_eq!(most, 3);
    assert!(!files.keys().any(|name| name.ends_with(".pieces")), "{:?}", files.keys());
}

#[test]
fn the_same_image_gives_the_same_bytes_whatever_the_threads() {
    let layout = one_image();
    layout.convert(layout.options("oci:DIR/out")).unwrap();
    let again = ConvertOptions { jobs: 5, ..layout.options("oci:DIR/again") };
    layout.convert(again).unwrap();
    assert_eq!(files(&layout.path("out")), files(&layout.path("again")));
}

#[test]
fn blobs_that_the_target_has_are_not_sent_again() {
    let layout = one_image();
    let first = layout.convert(layout.options("oci:DIR/out:a")).unwrap();
    let second = layout.convert(layout.options("oci:DIR/out:b")).unwrap();
    assert!(first.images[0].layers[..3].iter().all(|layer| layer.sent));
    assert!(second.images[0].layers.iter().all(|layer| !layer.sent));
    assert_eq!(read_json(&layout.path("out/index.json"))["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn nothing_but_the_image_is_left_in_the_target() {
    let layout = one_image();
    layout.convert(layout.options("oci:DIR/out")).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(layout.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["blobs", "index.json", "oci-layout"]);
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let layout = one_image();
    let mut options = layout.options("oci:DIR/new/out");
    options.prefetch = Some(layout.path("no such list"));
    layout.convert(options).unwrap_err();
    assert!(!layout.path("new").exists());
}

#[test]
fn conversions_side_by_side_all_leave_their_names() {
    let layout = one_image();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (layout, target) = (&layout, format!("oci:DIR/out:t{number}"));
            scope.spawn(move || layout.convert(layout.options(&target)).unwrap());
        }
    });
    let index = read_json(&layout.path("out/index.json"));
    let named = index["manifests"].as_array().unwrap().iter();
    let names: BTreeSet<_> =
        named.map(|named| named["annotations"]["org.opencontainers.image.ref.name"].to_string()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
}

#[test]
fn archives_are_read_and_written() {
    let layout = one_image();
    let direct = layout.convert(layout.options("oci:DIR/out")).unwrap();
    layout.convert(layout.options("oci-archive:DIR/out.tar:v1")).unwrap();
    let mut source = tar::Builder::new(std::fs::File::create(layout.path("source.tar")).unwrap());
    source.append_dir_all(".", layout.path("source")).unwrap();
    source.into_inner().unwrap();
    let from_archive = ConvertOptions {
        source: format!("oci-archive:{}:v1", layout.path("source.tar").display()),
        ..layout.options("oci:DIR/third")
    };
    assert_eq!(layout.convert(from_archive).unwrap().digest, direct.digest);
    let mut packed = tar::Archive::new(std::fs::File::open(layout.path("out.tar")).unwrap());
    packed.unpack(layout.path("unpacked")).unwrap();
    let index = read_json(&layout.path("unpacked/index.json"));
    assert_eq!(index["manifests"][0]["digest"], direct.digest.as_str());
}

#[test]
fn of_an_index_the_wanted_platforms_are_converted() {
    let layout = Layout::new();
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let mut image = layout.image(&layers(), architecture, true);
        image["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifests.push(image);
    }
    let list = format!("{DOCKER}.distribution.manifest.list.v2+json");
    let index = json!({ "schemaVersion": 2, "mediaType": list, "manifests": manifests });
    layout.tag(layout.put(&list, index.to_string().as_bytes()), "v1");
    let all = layout.convert(layout.options("oci:DIR/all")).unwrap();
    assert_eq!((all.images.len(), all.media_type.as_str()), (2, list.as_str()));
    let one = |name: &str| ConvertOptions {
        platforms: Platforms::Listed(vec![name.into()]),
        ..layout.options("oci:DIR/one")
    };
    let arm = layout.convert(one("linux/arm64/v8")).unwrap();
    assert_eq!(arm.media_type, format!("{DOCKER}.distribution.manifest.v2+json"));
    assert_eq!(arm.digest, all.images[1].digest);
    let manifest = follow(&layout.path("one"), &read_json(&layout.path("one/index.json"))["manifests"][0]);
    assert_eq!(manifest["layers"][4]["mediaType"], format!("{DOCKER}.image.rootfs.diff.tar.gzip"));
    let error = layout.convert(one("linux/riscv64")).unwrap_err().to_string();
    assert!(error.contains("linux/riscv64") && error.contains("linux/amd64"), "{error}");
}

#[test]
fn listed_files_come_first_and_stand_in_the_prefetch_table() {
    let layout = one_image();
    let list = layout.path("list");
    std::fs::write(&list, "/usr/more\n/lib/so\t0 2\n/no/such\n").unwrap();
    let options = ConvertOptions { prefetch: Some(list), ..layout.options("oci:DIR/out") };
    layout.convert(options.clone()).unwrap();
    layout.convert(ConvertOptions { target: options.target.replace("out", "again"), ..options }).unwrap();
    let out = layout.path("out");
    assert_eq!(files(&out), files(&layout.path("again")));
    let manifest = follow(&out, &read_json(&out.join("index.json"))["manifests"][0]);
    let tree = image_tree(&out, &manifest);
    assert_eq!(tree.prefetch, [tree.find(b"usr/more").unwrap(), tree.find(b"usr/lib/so").unwrap()]);
    let listing = rafs_content::list(&tree, &out.join("blobs/sha256"));
    layout.convert(layout.options("oci:DIR/plain")).unwrap();
    let plain = layout.path("plain");
    let manifest = follow(&plain, &read_json(&plain.join("index.json"))["manifests"][0]);
    assert_eq!(rafs_content::list(&image_tree(&plain, &manifest), &plain.join("blobs/sha256")), listing);
}

/// Converts an image with one bad layer; gives the whole message, and checks that nothing is tagged.
fn refused(layer: Layer) -> String {
    let layout = Layout::new();
    layout.tag(layout.image(&[layer], "amd64", false), "v1");
    let error = layout.convert(layout.options("oci:DIR/out")).unwrap_err();
    assert!(!layout.path("out/index.json").exists());
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    message
}

#[test]
fn bad_layers_are_refused_with_layer_and_entry_named() {
    let plain = tar_of(&[("some/file", tar::EntryType::Regular, &[7; 50_000])]);
    let kind = || format!("{OCI}.layer.v1.tar+gzip");
    let mut cut = gzip(&plain);
    cut.truncate(cut.len() - 20);
    let layer = format!("layer sha256:{}", sha256(&cut));
    let message = refused(Layer { media_type: kind(), stored: cut, plain: plain.clone() });
    assert!(message.contains(&layer), "{message}");

    let stored = plain[..20_000].to_vec();
    let message = refused(Layer { media_type: kind(), stored: gzip(&stored), plain: stored });
    assert!(message.contains("some/file"), "{message}");

    let message = refused(Layer { media_type: kind(), stored: gzip(&plain), plain: b"another".to_vec() });
    assert!(message.contains("digest") && message.contains(&sha256(b"another")), "{message}");

    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_owned();
    let message = refused(Layer { media_type: foreign.clone(), stored: gzip(&plain), plain: plain.clone() });
    assert!(message.contains(&foreign), "{message}");

    let mut escaping = tar_of(&[("aa/evil", tar::EntryType::Regular, b"x")]);
    escaping[..7].copy_from_slice(b"../evil");
    escaping[148..156].fill(b' ');
    let sum: u32 = escaping[..512].iter().map(|b| u32::from(*b)).sum();
    escaping[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let message = refused(Layer { media_type: kind(), stored: gzip(&escaping), plain: escaping });
    assert!(message.contains("../evil") && message.contains("layer sha256:"), "{message}");
}

#[test]
fn a_layer_of_other_bytes_than_its_digest_is_refused() {
    let layout = one_image();
    let layer = &layers()[2];
    let path = layout.path("source/blobs/sha256").join(sha256(&layer.stored));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 1;
    bytes[at] = 1;
    std::fs::write(&path, bytes).unwrap();
    let error = layout.convert(layout.options("oci:DIR/out")).unwrap_err();
    assert!(error.to_string().contains(&sha256(&layer.stored)), "{error}");
    assert!(!layout.path("out/index.json").exists());
}

#[test]
fn a_nydus_image_is_refused_in_clear_words() {
    let layout = one_image();
    layout.convert(layout.options("oci:DIR/out:v1")).unwrap();
    let again = ConvertOptions {
        source: format!("oci:{}:v1", layout.path("out").display()),
        ..layout.options("oci:DIR/twice")
    };
    let error = layout.convert(again).unwrap_err().to_string();
    assert!(error.contains("Nydus image already"), "{error}");
}

/// A registry that has the image of a layout as `from:v1`.
async fn registry_with(layout: &Layout) -> TestRegistry {
    let registry = TestRegistry::start().await;
    for entry in std::fs::read_dir(layout.path("source/blobs/sha256")).unwrap() {
        registry.put_blob(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let index = read_json(&layout.path("source/index.json"));
    let manifest = follow(&layout.path("source"), &index["manifests"][0]);
    let kind = manifest["mediaType"].as_str().unwrap().to_owned();
    registry.put_manifest("from", "v1", &kind, serde_json::to_vec(&manifest).unwrap());
    registry
}

fn between(registry: &TestRegistry, layout: &Layout) -> ConvertOptions {
    ConvertOptions {
        source: format!("{}/from:v1", registry.host()),
        target: format!("{}/to:v1", registry.host()),
        work_dir: Some(layout.path("work")),
        ..layout.options("oci:DIR/unused")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_from_registry_to_registry_and_its_blobs_only_once() {
    let layout = one_image();
    let registry = registry_with(&layout).await;
    let options = between(&registry, &layout);
    let first = builder::convert(options.clone(), Arc::new(Silent)).await.unwrap();
    let direct = layout.options("oci:DIR/out");
    let direct = builder::convert(direct, Arc::new(Silent)).await.unwrap();
    assert_eq!(first.digest, direct.digest);
    let manifest: Value = serde_json::from_slice(&registry.manifest("to", "v1").unwrap()).unwrap();
    let digests =
        manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap());
    assert!(digests.clone().all(|digest| registry.blob(digest).is_some()));
    let second = builder::convert(options, Arc::new(Silent)).await.unwrap();
    assert_eq!(second.digest, first.digest);
    assert!(second.images[0].layers.iter().all(|layer| !layer.sent));
    assert_eq!(std::fs::read_dir(layout.path("work")).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_upload_breaks_is_sent_again() {
    let layout = one_image();
    let registry = registry_with(&layout).await;
    let options = between(&registry, &layout);
    registry.cut_uploads(2);
    let report = builder::convert(options, Arc::new(Silent)).await.unwrap();
    for layer in &report.images[0].layers {
        assert_eq!(registry.blob(&layer.digest).unwrap().len() as u64, layer.size);
    }
    let puts =
        registry.requests().into_iter().filter(|one| one.method == "PUT" && one.target.contains("/uploads/"));
    assert!(puts.count() > 2 + report.images[0].layers.iter().filter(|layer| layer.sent).count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_stream_breaks_goes_on_where_it_broke() {
    let layout = one_image();
    let registry = registry_with(&layout).await;
    let options = between(&registry, &layout);
    registry.fail(Fault::ShortBody, 3);
    builder::convert(options, Arc::new(Silent)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_the_registry_lost_is_named_and_nothing_tagged() {
    let layout = one_image();
    let registry = registry_with(&layout).await;
    let layer = &layers()[1];
    registry.remove_blob(&format!("sha256:{}", sha256(&layer.stored)));
    let error = builder::convert(between(&registry, &layout), Arc::new(Silent)).await.unwrap_err();
    assert!(error.to_string().contains(&sha256(&layer.stored)), "{error}");
    assert!(registry.manifest("to", "v1").is_none());
}
