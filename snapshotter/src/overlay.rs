//! What overlayfs can and needs on this machine.

use std::{fs, path::Path};

use crate::mounts::OverlayOptions;

/// Options for every overlay mount, as containerd's overlayfs snapshotter picks them.
#[must_use]
pub fn options() -> OverlayOptions {
    let mut options = Vec::new();
    // With an index a second overlay over the same upper directory would be refused.
    if Path::new("/sys/module/overlay/parameters/index").exists() {
        options.push("index=off".to_owned());
    }
    // In a user namespace overlayfs may not write trusted.* attributes.
    if fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_user_namespace(&map)) {
        options.push("userxattr".to_owned());
    }
    OverlayOptions(options)
}

fn is_user_namespace(uid_map: &str) -> bool {
    uid_map.split_whitespace().ne(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_identity_map_is_the_first_user_namespace() {
        assert!(!is_user_namespace("         0          0 4294967295\n"));
        assert!(is_user_namespace("         0       1000          1\n"));
    }
}
