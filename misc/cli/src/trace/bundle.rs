//! The image's configuration as a runc specification.

use std::path::Path;

use anyhow::Context;
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};
use service::exit::UsageError;

/// Capabilities that container engines give by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
/// What a program finds where the image says nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The specification; `command` replaces what the image would run.
pub(super) fn spec(image: &ImageConfiguration, command: &[String], root: &Path) -> anyhow::Result<Value> {
    let config = image.config().clone().unwrap_or_default();
    let own = || config.entrypoint().iter().chain(config.cmd()).flatten().cloned().collect::<Vec<_>>();
    let args = if command.is_empty() { own() } else { command.to_vec() };
    if args.is_empty() {
        return Err(UsageError("the image names no command; give one behind --".into()).into());
    }
    let mut env = config.env().clone().unwrap_or_default();
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push(PATH.into());
    }
    let cwd = config.working_dir().as_deref().filter(|dir| dir.starts_with('/')).unwrap_or("/");
    let (uid, gid) = user(config.user().as_deref().unwrap_or_default(), root)?;
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": uid, "gid": gid},
            "args": args,
            "env": env,
            "cwd": cwd,
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
        },
        "root": {"path": root, "readonly": false},
        "hostname": "shoal",
        "mounts": mounts(),
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
        },
    }))
}

fn mounts() -> Value {
    let quiet = ["nosuid", "noexec", "nodev"];
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": quiet},
        {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro", "nosuid", "noexec", "nodev"]},
    ])
}

/// Reads `user`, `uid`, `user:group`, `uid:gid` as engines do.
fn user(text: &str, root: &Path) -> anyhow::Result<(u32, u32)> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if user.is_empty() {
        return Ok((0, 0));
    }
    let line = find(root, "etc/passwd", user);
    let uid = number(line.as_deref(), 2).or_else(|| user.parse().ok());
    let uid =
        uid.with_context(|| format!("the image runs as {user:?}, whom its /etc/passwd does not know"))?;
    let gid = match group {
        None => number(line.as_deref(), 3).unwrap_or(0),
        Some(group) => {
            number(find(root, "etc/group", group).as_deref(), 2).or_else(|| group.parse().ok()).with_context(
                || format!("the image runs in group {group:?}, which its /etc/group does not know"),
            )?
        }
    };
    Ok((uid, gid))
}

/// The line of a user or group, by name or by number.
fn find(root: &Path, file: &str, name: &str) -> Option<String> {
    // The image could make these files links out of its root; then they are not followed.
    let path = root.join(file);
    let within = path.canonicalize().ok()?.starts_with(root.canonicalize().ok()?);
    let text = std::fs::read_to_string(within.then_some(path)?).ok()?;
    let matches = |line: &&str| line.split(':').next() == Some(name) || line.split(':').nth(2) == Some(name);
    text.lines().find(matches).map(str::to_owned)
}

fn number(line: Option<&str>, field: usize) -> Option<u32> {
    line?.split(':').nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &Value) -> ImageConfiguration {
        let value = json!({"architecture": "amd64", "os": "linux", "config": config,
                           "rootfs": {"type": "layers", "diff_ids": []}});
        serde_json::from_value(value).unwrap()
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n")
            .unwrap();
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
        root
    }

    #[test]
    fn the_image_says_what_runs_unless_the_user_does() {
        let root = root();
        let image =
            image(&json!({"Entrypoint": ["/run"], "Cmd": ["-x"], "WorkingDir": "/w", "Env": ["A=1"]}));
        let own = spec(&image, &[], root.path()).unwrap();
        assert_eq!(own["process"]["args"], json!(["/run", "-x"]));
        assert_eq!(own["process"]["cwd"], "/w");
        assert_eq!(own["process"]["env"], json!(["A=1", PATH]));
        let given = spec(&image, &["ls".into()], root.path()).unwrap();
        assert_eq!(given["process"]["args"], json!(["ls"]));
    }

    #[test]
    fn an_image_without_command_needs_one() {
        assert!(spec(&image(&json!({})), &[], root().path()).unwrap_err().is::<UsageError>());
    }

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        let root = root();
        for (text, ids) in [
            ("", (0, 0)),
            ("web", (33, 34)),
            ("33", (33, 34)),
            ("7", (7, 0)),
            ("web:staff", (33, 50)),
            ("7:8", (7, 8)),
        ] {
            assert_eq!(user(text, root.path()).unwrap(), ids, "{text}");
        }
        assert!(user("nobody", root.path()).is_err());
    }
}
