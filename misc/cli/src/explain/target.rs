//! Which mounted images a word of the user means.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use nydusd_api::MountedImage;
use registry::Reference;

/// A mounted image.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) mounted: MountedImage,
    /// Host and repository of its blobs.
    pub(super) image: String,
}

/// Those of `all` that the targets mean; all of them where there is no target.
pub(super) fn choose(all: Vec<Candidate>, targets: &[String]) -> anyhow::Result<Vec<Candidate>> {
    if targets.is_empty() {
        return Ok(all);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo cannot be read")?;
    let mut is_chosen = vec![false; all.len()];
    for target in targets {
        let below = lowers(&mounts, target);
        let mut found = false;
        for (chosen, candidate) in is_chosen.iter_mut().zip(&all) {
            if is_meant(candidate, target, &below) {
                (*chosen, found) = (true, true);
            }
        }
        if !found {
            bail!("{target} is no image that nydusd has mounted; `shoal status` shows them");
        }
    }
    Ok(all.into_iter().zip(is_chosen).filter_map(|(candidate, chosen)| chosen.then_some(candidate)).collect())
}

fn is_meant(candidate: &Candidate, target: &str, below: &[String]) -> bool {
    let Candidate { mounted, image } = candidate;
    let repository = Reference::parse(target).ok().map(|reference| reference.repository.to_string());
    let is_mountpoint = mounted.mountpoint.trim_start_matches('/') == target.trim_start_matches('/');
    is_mountpoint
        || mounted.path == Path::new(target)
        || repository.as_ref() == Some(image)
        // containerd shortens long lists of directories to their ends.
        || below.iter().any(|lower| mounted.path.ends_with(lower))
}

/// Directories below the overlay at `target`, or of the container of that name.
fn lowers(mounts: &str, target: &str) -> Vec<String> {
    let rootfs = format!("/{}/rootfs", target.trim_matches('/'));
    let mut lowers = Vec::new();
    for line in mounts.lines() {
        // "36 35 98:0 /root /where options … - overlay source options"
        let Some((mount, file_system)) = line.split_once(" - ") else { continue };
        let (Some(place), Some(options)) = (mount.split(' ').nth(4), file_system.strip_prefix("overlay "))
        else {
            continue;
        };
        if place != target.trim_end_matches('/') && !place.ends_with(&rootfs) {
            continue;
        }
        let options = options.split(' ').nth(1).unwrap_or_default().split(',');
        let listed = options.filter_map(|option| option.strip_prefix("lowerdir="));
        lowers.extend(listed.flat_map(|list| list.split(':')).map(str::to_owned));
    }
    lowers
}

#[cfg(test)]
mod tests {
    use nydusd_api::DataPath;

    use super::*;

    const MOUNTS: &str = "\
22 1 0:20 / /proc rw - proc proc rw
40 22 0:50 / /run/containerd/io.containerd.runtime.v2.task/default/web/rootfs rw,relatime shared:9 - overlay overlay rw,lowerdir=/r/erofs/7:/r/snapshots/3/fs,upperdir=/r/8/fs,workdir=/r/8/work
";

    fn candidate(mountpoint: &str, path: &str) -> Candidate {
        let mounted =
            MountedImage { mountpoint: mountpoint.into(), data_path: DataPath::Erofs, path: path.into() };
        Candidate { mounted, image: "example.com/app".into() }
    }

    fn meant(target: &str) -> Vec<String> {
        let all = [candidate("/7", "/r/erofs/7"), candidate("/77", "/r/erofs/77")];
        let below = lowers(MOUNTS, target);
        let meant = all.iter().filter(|candidate| is_meant(candidate, target, &below));
        meant.map(|candidate| candidate.mounted.mountpoint.clone()).collect()
    }

    #[test]
    fn an_image_is_found_by_its_mountpoint_directory_and_container() {
        let rootfs = "/run/containerd/io.containerd.runtime.v2.task/default/web/rootfs";
        for target in ["/7", "7", "/r/erofs/7", "web", rootfs] {
            assert_eq!(meant(target), ["/7"], "{target}");
        }
        assert!(meant("/8").is_empty() && meant("we").is_empty());
    }

    #[test]
    fn all_images_of_a_repository_are_found_by_any_reference_to_it() {
        for target in ["example.com/app", "example.com/app:lazy"] {
            assert_eq!(meant(target), ["/7", "/77"], "{target}");
        }
    }
}
