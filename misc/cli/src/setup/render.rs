//! The texts that `shoal setup` prints.

use super::Generation;

/// Where the snapshotter listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/containerd-nydus/containerd-nydus-grpc.sock";

/// All parts, each with the name of the file it belongs into.
pub(super) fn everything(generation: Generation, address: &str, default: bool) -> String {
    [
        "# == /etc/containerd/config.toml (merge by hand: a table may stand only once)\n",
        &containerd(generation, address, default),
        "\n# == /etc/containerd/certs.d/REGISTRY:PORT/hosts.toml (only for a registry without public TLS)\n",
        &hosts(),
        "\n# == /etc/systemd/system/containerd-nydus-grpc.service\n",
        &systemd(address),
    ]
    .concat()
}

/// Additions to containerd's configuration. overlayfs stays what images use unless they ask for another.
pub(super) fn containerd(generation: Generation, address: &str, default: bool) -> String {
    match generation {
        Generation::One => one(address, default),
        Generation::TwoZero => two(
            address,
            default,
            "# The transfer service of 2.0 sends no image labels: pull with `ctr images pull --local`,\n# `shoal pull` or CRI.\n",
        ),
        Generation::Two => two(address, default, ""),
    }
}

fn one(address: &str, default: bool) -> String {
    let snapshotter = if default { "nydus" } else { "overlayfs" };
    format!(
        r#"version = 2

[proxy_plugins.nydus]
  type = "snapshot"
  address = "{address}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{snapshotter}"
  # Without these labels a lazy image cannot be found again when its data is read.
  disable_snapshot_annotations = false
  # Unpacked layers are needed again by push, commit and convert.
  discard_unpacked_layers = false

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
"#
    )
}

fn two(address: &str, default: bool, note: &str) -> String {
    let snapshotter = if default { "nydus" } else { "overlayfs" };
    format!(
        r#"version = 3

{note}[proxy_plugins.nydus]
  type = "snapshot"
  address = "{address}"
  [proxy_plugins.nydus.exports]
    # Makes the transfer service tell the snapshotter which image a layer is from.
    enable_remote_snapshot_annotations = "true"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  disable_snapshot_annotations = false
  discard_unpacked_layers = false
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"

# An entry here replaces the built-in list, so overlayfs is named again.
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "overlayfs"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "nydus"
"#
    )
}

/// A registry that containerd, nydusd and shoal may talk to in plain HTTP.
pub(super) fn hosts() -> String {
    r#"server = "http://REGISTRY:PORT"

[host."http://REGISTRY:PORT"]
  capabilities = ["pull", "resolve", "push"]
"#
    .into()
}

/// The piece network's mirror before a registry. What it cannot give, containerd asks the registry for.
pub(super) fn mirror() -> String {
    r#"# For p2pd up --mirror 127.0.0.1:4701.
# containerd: /etc/containerd/certs.d/REGISTRY/hosts.toml
server = "https://REGISTRY"

[host."http://127.0.0.1:4701"]
  capabilities = ["pull", "resolve"]

# Podman, in /etc/containers/registries.conf:
#   [[registry]]
#   location = "REGISTRY"
#   [[registry.mirror]]
#   location = "127.0.0.1:4701/REGISTRY"
#   insecure = true
#
# Docker, which has mirrors of Docker Hub alone, in /etc/docker/daemon.json:
#   { "registry-mirrors": ["http://127.0.0.1:4701"] }
#
# Instead of a mirror, for registries in plain HTTP, with p2pd up --proxy 127.0.0.1:4702: containerd, in
# /etc/systemd/system/containerd.service.d/proxy.conf. What is in TLS goes through as it is, and is not shared.
#   [Service]
#   Environment="HTTP_PROXY=http://127.0.0.1:4702"
#   Environment="HTTPS_PROXY=http://127.0.0.1:4702"
#   Environment="NO_PROXY=localhost,127.0.0.0/8"
"#
    .into()
}

/// The snapshotter's unit. Its daemons outlive it, so a restart must not kill them.
pub(super) fn systemd(address: &str) -> String {
    include_str!("../../../systemd/containerd-nydus-grpc.service").replace(DEFAULT_SOCKET, address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = include_str!("../../../systemd/containerd-nydus-grpc.service");

    #[test]
    fn version_one_has_the_golden_configuration() {
        let golden = include_str!("../../../config/containerd-1.toml");
        assert_eq!(containerd(Generation::One, DEFAULT_SOCKET, false), golden);
    }

    #[test]
    fn version_two_has_the_golden_configuration() {
        let golden = include_str!("../../../config/containerd-2.toml");
        assert_eq!(containerd(Generation::Two, DEFAULT_SOCKET, false), golden);
    }

    #[test]
    fn every_configuration_is_toml_and_names_the_socket() {
        for generation in [Generation::One, Generation::TwoZero, Generation::Two] {
            let text = containerd(generation, "/run/x.sock", true);
            let parsed: toml::Table = text.parse().unwrap();
            assert_eq!(parsed["proxy_plugins"]["nydus"]["address"].as_str(), Some("/run/x.sock"));
            assert!(text.contains("snapshotter = \"nydus\""));
        }
    }

    #[test]
    fn overlayfs_stays_known_to_the_transfer_service() {
        let parsed: toml::Table = containerd(Generation::Two, DEFAULT_SOCKET, true).parse().unwrap();
        let entries = &parsed["plugins"]["io.containerd.transfer.v1.local"]["unpack_config"];
        let names: Vec<&str> =
            entries.as_array().unwrap().iter().filter_map(|entry| entry["snapshotter"].as_str()).collect();
        assert_eq!(names, ["overlayfs", "nydus"]);
    }

    #[test]
    fn a_mirror_s_hosts_file_is_toml_with_the_registry_behind_it() {
        let parsed: toml::Table = mirror().parse().unwrap();
        assert_eq!(parsed["server"].as_str(), Some("https://REGISTRY"));
        assert!(parsed["host"].as_table().unwrap().contains_key("http://127.0.0.1:4701"));
    }

    #[test]
    fn the_unit_leaves_the_daemons_alone_when_the_snapshotter_ends() {
        assert!(UNIT.lines().any(|line| line == "KillMode=process"));
        assert!(systemd("/run/other.sock").contains("--address /run/other.sock"));
    }
}
