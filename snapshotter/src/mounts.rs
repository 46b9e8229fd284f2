//! What containerd is told to mount. Touches nothing.

use std::path::Path;

use crate::meta::Kind;

/// One mount, as containerd makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `bind` or `overlay`.
    pub fs_type: &'static str,
    /// What is mounted.
    pub source: String,
    /// Options, in containerd's form.
    pub options: Vec<String>,
}

/// Options of every overlay on this machine.
#[derive(Debug, Clone, Default)]
pub struct OverlayOptions(pub Vec<String>);

/// A snapshot's own directories.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Where its changes go.
    pub upper: &'a Path,
    /// overlayfs' own.
    pub work: &'a Path,
}

/// The one mount that shows a snapshot of `kind` with `lowers` (nearest first) below its own directory.
#[must_use]
pub fn mount(kind: Kind, own: Own<'_>, lowers: &[impl AsRef<Path>], overlay: &OverlayOptions) -> Mount {
    let writable = kind == Kind::Active;
    match lowers {
        // overlayfs wants something below; without it the directory is the tree.
        [] => bind(own.upper, writable),
        [only] if !writable => bind(only.as_ref(), false),
        _ => {
            let mut options = overlay.0.clone();
            if writable {
                options.push(format!("workdir={}", own.work.display()));
                options.push(format!("upperdir={}", own.upper.display()));
            }
            let lowers: Vec<_> = lowers.iter().map(|lower| lower.as_ref().display().to_string()).collect();
            options.push(format!("lowerdir={}", lowers.join(":")));
            Mount { fs_type: "overlay", source: "overlay".into(), options }
        }
    }
}

fn bind(source: &Path, writable: bool) -> Mount {
    let access = if writable { "rw" } else { "ro" };
    Mount {
        fs_type: "bind",
        source: source.display().to_string(),
        options: vec![access.into(), "rbind".into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: Kind, lowers: &[&str]) -> Mount {
        let own = Own { upper: Path::new("/r/9/fs"), work: Path::new("/r/9/work") };
        mount(kind, own, lowers, &OverlayOptions(vec!["index=off".into()]))
    }

    #[test]
    fn first_layer_is_a_writable_bind_of_its_directory() {
        let mount = made(Kind::Active, &[]);
        assert_eq!((mount.fs_type, mount.source.as_str()), ("bind", "/r/9/fs"));
        assert_eq!(mount.options, ["rw", "rbind"]);
    }

    #[test]
    fn active_snapshot_is_an_overlay_in_the_order_of_its_parents() {
        let mount = made(Kind::Active, &["/r/2/fs", "/r/1/fs"]);
        assert_eq!((mount.fs_type, mount.source.as_str()), ("overlay", "overlay"));
        let wanted = ["index=off", "workdir=/r/9/work", "upperdir=/r/9/fs", "lowerdir=/r/2/fs:/r/1/fs"];
        assert_eq!(mount.options, wanted);
    }

    #[test]
    fn view_of_one_layer_is_a_read_only_bind_of_it() {
        let mount = made(Kind::View, &["/r/mnt/3"]);
        assert_eq!((mount.fs_type, mount.source.as_str()), ("bind", "/r/mnt/3"));
        assert_eq!(mount.options, ["ro", "rbind"]);
    }

    #[test]
    fn view_of_several_layers_is_an_overlay_without_upper() {
        let mount = made(Kind::View, &["/r/2/fs", "/r/1/fs"]);
        assert_eq!(mount.options, ["index=off", "lowerdir=/r/2/fs:/r/1/fs"]);
    }

    #[test]
    fn view_of_nothing_is_an_empty_read_only_directory() {
        let mount = made(Kind::View, &[]);
        assert_eq!(mount.source, "/r/9/fs");
        assert_eq!(mount.options, ["ro", "rbind"]);
    }
}
