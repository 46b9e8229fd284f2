//! containerd of our own: Debian's, or the 2.x of Debian unstable unpacked aside.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    cache,
    command::{command, in_path, output, run},
    daemon::Daemon,
    image::debian,
    scratch::{Mounted, Scratch},
};

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The one in `PATH`; 1.6 on Debian 12.
    Installed,
    /// The 2.x that Debian unstable carries.
    Unstable,
}

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    daemon: Daemon,
    release: Release,
    bin: Option<PathBuf>,
    socket: PathBuf,
}

impl Release {
    /// Directory of its programs, where it is not `PATH`.
    ///
    /// # Errors
    /// Where Debian unstable's package cannot be had.
    pub fn programs(self) -> Result<Option<PathBuf>> {
        match self {
            Self::Installed => Ok(None),
            Self::Unstable => {
                let dir = cache::once("containerd-unstable", "1", unpack_unstable)?;
                Ok(Some(dir.join("root/usr/bin")))
            }
        }
    }
}

impl Containerd {
    /// Starts containerd in `scratch` with our snapshotter's socket as plugin `nydus`, and CRI pulling through it. Pods
    /// are kept by image `pause:plain` of `registry`.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn start(
        scratch: &Scratch,
        release: Release,
        snapshotter: &Path,
        registry: SocketAddr,
    ) -> Result<Self> {
        let dir = scratch.dir("containerd")?;
        let bin = release.programs()?;
        let socket = dir.join("containerd.sock");
        let config = dir.join("config.toml");
        fs::write(&config, configuration(release, &dir, [&socket, snapshotter], registry)?)?;
        let program = bin.as_ref().map_or_else(|| PathBuf::from("containerd"), |bin| bin.join("containerd"));
        let mut start = command(program, ["--config"]);
        start.arg(&config).env("PATH", path(bin.as_deref())?);
        let daemon = Daemon::start("containerd", &mut start, &dir.join("containerd.log"))?;
        let mut containerd = Self { daemon, release, bin, socket };
        let mut version = containerd.ctr(["version"]);
        containerd.daemon.wait_ready(Duration::from_secs(60), || {
            output(&mut version, Duration::from_secs(10)).is_ok_and(|output| output.status.success())
        })?;
        Ok(containerd)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Which one it is.
    #[must_use]
    pub fn release(&self) -> Release {
        self.release
    }

    /// The end of its log.
    #[must_use]
    pub fn said(&self) -> String {
        self.daemon.said()
    }

    /// `ctr` of the same release.
    #[must_use]
    pub fn ctr<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let program = self.bin.as_ref().map_or_else(|| PathBuf::from("ctr"), |bin| bin.join("ctr"));
        let mut ctr = command(program, ["--address"]);
        ctr.arg(&self.socket).args(args);
        ctr
    }

    /// `ctr run` of a program to its end, without a terminal or a cgroup of the machine.
    #[must_use]
    pub fn run(&self, snapshotter: &str, image: &str, name: &str, args: &[&str]) -> Command {
        let mut ctr = self.ctr(["run", "--rm", "--snapshotter", snapshotter, image, name]);
        ctr.args(args);
        ctr
    }

    /// An ordinary pull, unpacked for `snapshotter`.
    ///
    /// # Errors
    /// What ctr tells.
    pub fn pull(&self, snapshotter: &str, image: &str) -> Result<()> {
        let local: &[&str] = if self.release == Release::Unstable { &["--local"] } else { &[] };
        let mut ctr = self.ctr(["images", "pull", "--plain-http", "--snapshotter", snapshotter]);
        run(ctr.args(local).arg(image))?;
        Ok(())
    }

    /// Pulls by containerd's own transfer service, which 2.x has.
    ///
    /// # Errors
    /// What ctr tells.
    pub fn transfer(&self, snapshotter: &str, image: &str) -> Result<()> {
        run(self.ctr(["images", "pull", "--plain-http", "--snapshotter", snapshotter]).arg(image))?;
        Ok(())
    }

    /// Mounts the tree of an image, read-only. Not by `ctr images mount`: that wants every layer downloaded.
    ///
    /// # Errors
    /// What ctr tells.
    pub fn view(&self, snapshotter: &str, image: &str, point: &Path) -> Result<Mounted> {
        let name = self.create(snapshotter, image)?;
        let info: serde_json::Value = serde_json::from_str(&run(&mut self.ctr([
            "snapshots",
            "--snapshotter",
            snapshotter,
            "info",
            &name,
        ]))?)?;
        let top = info["Parent"].as_str().context("a container's snapshot has a parent")?;
        let mut view = self.ctr(["snapshots", "--snapshotter", snapshotter, "view", "--target"]);
        mount(view.arg(point).arg(format!("{name}-view")).arg(top), point)
    }

    /// Mounts the tree of an image as a container has it, with a layer to write to.
    ///
    /// # Errors
    /// What ctr tells.
    pub fn mount(&self, snapshotter: &str, image: &str, point: &Path) -> Result<Mounted> {
        let name = self.create(snapshotter, image)?;
        let mut mounts = self.ctr(["snapshots", "--snapshotter", snapshotter, "mounts"]);
        mount(mounts.arg(point).arg(name), point)
    }

    /// Creates a container that is never started.
    fn create(&self, snapshotter: &str, image: &str) -> Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("idle-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        run(&mut self.ctr(["containers", "create", "--snapshotter", snapshotter, image, &name, "idle"]))?;
        Ok(name)
    }

    /// Ends every container, then forgets images, so that nothing of theirs is left mounted.
    ///
    /// # Errors
    /// What ctr tells.
    pub fn clear(&self) -> Result<()> {
        for namespace in ["default", "k8s.io"] {
            let ctr = |args: &[&str]| run(self.ctr(["--namespace", namespace]).args(args));
            for task in ctr(&["tasks", "list", "-q"])?.lines() {
                ctr(&["tasks", "delete", "--force", task])?;
            }
            for container in ctr(&["containers", "list", "-q"])?.lines() {
                ctr(&["containers", "delete", container])?;
            }
            for image in ctr(&["images", "list", "-q"])?.lines() {
                ctr(&["images", "remove", "--sync", image])?;
            }
        }
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("containerd keeps something: {error:#}");
        }
    }
}

/// Runs the mount commands that ctr prints.
fn mount(ctr: &mut Command, point: &Path) -> Result<Mounted> {
    fs::create_dir_all(point)?;
    let script = run(ctr)?;
    run(&mut command("sh", ["-euc", &script]))?;
    Ok(Mounted::adopt(point))
}

/// `PATH` with a directory before it, so that containerd finds its own shim.
fn path(first: Option<&Path>) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").context("PATH is set")?;
    let all = first.map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    // Debian keeps runc in sbin, which a user's PATH may lack.
    Ok(std::env::join_paths(all.chain(["/usr/sbin".into(), "/sbin".into()]))?)
}

/// Downloads the package with the machine's apt, which checks it, in an apt directory of its own.
fn unpack_unstable(dir: &Path) -> Result<()> {
    let apt = dir.join("apt");
    for part in ["etc/apt", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"] {
        fs::create_dir_all(apt.join(part))?;
    }
    fs::write(apt.join("var/lib/dpkg/status"), "")?;
    let mirror = debian::mirror()?;
    fs::write(
        apt.join("etc/apt/sources.list"),
        format!("deb [signed-by={}] {mirror} sid main\n", debian::KEYRING),
    )?;
    let root = format!("Dir={}", apt.display());
    let options = ["-q", "-o", &root, "-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"];
    run(command("apt-get", options).arg("update"))?;
    run(command("apt-get", options).args(["download", "containerd"]).current_dir(dir))?;
    let package = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .context("apt downloaded no package")?;
    run(command("dpkg-deb", ["--extract"]).arg(&package).arg(dir.join("root")))?;
    fs::remove_file(package)?;
    fs::remove_dir_all(apt).context("remove the apt directory")
}

fn configuration(release: Release, dir: &Path, sockets: [&Path; 2], registry: SocketAddr) -> Result<String> {
    let hosts = dir.join("certs.d").join(registry.to_string());
    fs::create_dir_all(&hosts)?;
    fs::write(
        hosts.join("hosts.toml"),
        format!("server = \"http://{registry}\"\n[host.\"http://{registry}\"]\n"),
    )?;
    let (dir, [socket, snapshotter]) = (dir.display(), sockets.map(Path::display));
    let pause = format!("{registry}/pause:plain");
    let plugin = format!("[proxy_plugins.nydus]\ntype = \"snapshot\"\naddress = \"{snapshotter}\"\n");
    let common = format!(
        "root = \"{dir}/root\"\nstate = \"{dir}/state\"\n[grpc]\naddress = \"{socket}\"\n[debug]\nlevel = \"info\"\n{plugin}"
    );
    fs::create_dir_all(format!("{dir}/cni"))?;
    let (cni, certs) = (format!("{dir}/cni"), format!("{dir}/certs.d"));
    // Without systemd and with few capabilities an oom score below our own is refused.
    Ok(match release {
        Release::Installed => format!(
            "version = 2\n{common}\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\nsandbox_image = \"{pause}\"\n\
             enable_unprivileged_ports = false\ndisable_tcp_service = true\nstream_server_port = \"0\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{cni}\"\nconf_dir = \"{cni}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"nydus\"\n\
             disable_snapshot_annotations = false\ndiscard_unpacked_layers = false\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"{certs}\"\n"
        ),
        Release::Unstable => format!(
            "version = 3\n{common}[proxy_plugins.nydus.exports]\nenable_remote_snapshot_annotations = \"true\"\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [\"{cni}\"]\nconf_dir = \"{cni}\"\n\
             [plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"nydus\"\n\
             disable_snapshot_annotations = false\ndiscard_unpacked_layers = false\n\
             [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{pause}\"\n\
             [plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"{certs}\"\n\
             [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\nplatform = \"linux\"\nsnapshotter = \"overlayfs\"\n\
             [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\nplatform = \"linux\"\nsnapshotter = \"nydus\"\n"
        ),
    })
}

/// Whether nerdctl can be used instead of ctr.
#[must_use]
pub fn has_nerdctl() -> bool {
    in_path("nerdctl")
}
