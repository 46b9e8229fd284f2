//! How registries are reached: flags that several subcommands have.

use std::path::PathBuf;

use registry::ClientOptions;

/// Flags about registries.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Directory of HOST/hosts.toml files: mirrors, CAs, plain HTTP (default: containerd's and docker's)
    #[arg(long, value_name = "DIR")]
    hosts_dir: Vec<PathBuf>,
}

impl RegistryArgs {
    /// Options of a registry client.
    pub(crate) fn options(&self) -> ClientOptions {
        let mut options = ClientOptions::default();
        if !self.hosts_dir.is_empty() {
            options.hosts_dirs.clone_from(&self.hosts_dir);
        }
        options
    }
}
