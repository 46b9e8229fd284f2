//! The command line. Converters look for words in the help of `create`, so the help is an interface.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use service::telemetry::LogArgs;

/// Builds RAFS v6 images
#[derive(Debug, Parser)]
#[command(name = "nydus-image", version = version(), arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// File for the log instead of stderr
    #[arg(long, short = 'L', global = true)]
    pub(crate) log_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Callers look for `Version:` and a value that begins with `v`.
fn version() -> &'static str {
    use service::version::{BUILD_TIME, COMMIT, PACKAGE, PROFILE, RUSTC};
    let text = format!(
        "\rVersion: \tv{PACKAGE}-{COMMIT}\nGit Commit: \t{COMMIT}\nBuild Time: \t{BUILD_TIME}\n\
         Profile: \t{PROFILE}\nRustc: \t\t{RUSTC}"
    );
    text.leak()
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build one layer from a tar or a directory
    Create(CreateArgs),
    /// Merge the bootstraps of layers, lowest first, into the bootstrap of an image
    Merge(MergeArgs),
    /// Check a bootstrap and list its blobs
    Check(CheckArgs),
    /// Answer a question about a bootstrap as JSON
    Inspect(InspectArgs),
    /// Turn one layer back into a tar
    Unpack(UnpackArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The tar or directory; a tar may come through a FIFO
    pub(crate) source: PathBuf,
    /// Kind of the source: --type tar-rafs is a plain tar, --type targz-rafs a compressed one
    #[arg(long = "type", short = 't', alias = "source-type", value_enum, default_value = "dir-rafs")]
    pub(crate) kind: SourceKind,
    /// File or FIFO for the blob
    #[arg(long, short = 'b')]
    pub(crate) blob: Option<PathBuf>,
    /// Directory for the blob, which is named by its SHA-256
    #[arg(long, short = 'D', conflicts_with = "blob")]
    pub(crate) blob_dir: Option<PathBuf>,
    /// File for the bootstrap
    #[arg(long, short = 'B')]
    pub(crate) bootstrap: Option<PathBuf>,
    /// Put the bootstrap into the blob
    #[arg(long, alias = "inline-bootstrap", conflicts_with = "bootstrap")]
    pub(crate) blob_inline_meta: bool,
    /// Parts that the blob gets
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) features: Vec<Feature>,
    /// Form of whiteouts in a directory source; a tar keeps its whiteouts for the merge
    #[arg(long, short = 'W', value_enum, default_value = "oci")]
    pub(crate) whiteout_spec: WhiteoutSpec,
    /// Version of the format: 6
    #[arg(long, short = 'v', default_value = "6", value_parser = ["6"])]
    pub(crate) fs_version: String,
    /// How chunks are compressed
    #[arg(long, short = 'C', value_enum, default_value = "zstd")]
    pub(crate) compressor: CompressorName,
    /// How chunks are hashed
    #[arg(long, short = 'd', value_enum, default_value = "blake3")]
    pub(crate) digester: DigesterName,
    /// Bytes of a chunk, decimal or 0x hexadecimal, a power of two from 0x1000 to 0x1000000
    #[arg(long, short = 'S', default_value = "0x100000", value_parser = chunk_size)]
    pub(crate) chunk_size: u32,
    /// Image whose chunks are used instead of storing them again: bootstrap=FILE
    #[arg(long, short = 'M')]
    pub(crate) chunk_dict: Option<String>,
    /// Bootstrap of an image that the layer goes onto; the new bootstrap is that of both
    #[arg(long, short = 'p', conflicts_with = "blob_inline_meta")]
    pub(crate) parent_bootstrap: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) prefetch: PrefetchArgs,
    /// File for a summary as JSON
    #[arg(long, short = 'J')]
    pub(crate) output_json: Option<PathBuf>,
    /// Accepted and always so
    #[arg(long, short = 'A')]
    pub(crate) aligned_chunk: bool,
    /// Accepted; nothing is checked again
    #[arg(long, hide = true)]
    pub(crate) disable_check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PrefetchArgs {
    /// Whether stdin brings paths to prefetch, one a line, in the order of their use; `/` alone means none, because
    /// it would fetch the whole image ahead of use
    #[arg(long, short = 'P', value_enum, default_value = "none")]
    pub(crate) prefetch_policy: PrefetchPolicy,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Bootstraps of layers, lowest first, in files named by the SHA-256 of their blobs
    #[arg(required = true)]
    pub(crate) sources: Vec<PathBuf>,
    /// File for the merged bootstrap
    #[arg(long, short = 'B')]
    pub(crate) bootstrap: PathBuf,
    /// Bootstrap of an image below the layers
    #[arg(long, short = 'p')]
    pub(crate) parent_bootstrap: Option<PathBuf>,
    /// Image whose blobs layers may use: bootstrap=FILE
    #[arg(long, short = 'M')]
    pub(crate) chunk_dict: Option<String>,
    /// SHA-256 of the layers' blobs, instead of the files' names
    #[arg(long, value_delimiter = ',')]
    pub(crate) blob_digests: Vec<String>,
    /// Sizes of the layers' blobs in bytes
    #[arg(long, value_delimiter = ',')]
    pub(crate) blob_sizes: Vec<u64>,
    /// SHA-256 of the blobs' tables of contents
    #[arg(long, value_delimiter = ',')]
    pub(crate) blob_toc_digests: Vec<String>,
    #[command(flatten)]
    pub(crate) prefetch: PrefetchArgs,
    /// File for a summary as JSON
    #[arg(long, short = 'J')]
    pub(crate) output_json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The bootstrap
    #[arg(long, short = 'B')]
    pub(crate) bootstrap: PathBuf,
    /// File for a summary as JSON
    #[arg(long, short = 'J')]
    pub(crate) output_json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The bootstrap
    pub(crate) bootstrap: PathBuf,
    /// The question: blobs
    #[arg(long, short = 'R')]
    pub(crate) request: String,
}

#[derive(Debug, Args)]
pub(crate) struct UnpackArgs {
    /// The bootstrap
    #[arg(long, short = 'B')]
    pub(crate) bootstrap: PathBuf,
    /// File or FIFO for the tar
    #[arg(long, short = 'o')]
    pub(crate) output: PathBuf,
    /// The layer's blob, or its chunks alone
    #[arg(long, short = 'b')]
    pub(crate) blob: Option<PathBuf>,
    /// Directory of blobs, named by their ids
    #[arg(long, short = 'D', conflicts_with = "blob")]
    pub(crate) blob_dir: Option<PathBuf>,
    /// Where else blobs are: not supported
    #[arg(long, hide = true)]
    pub(crate) backend_type: Option<String>,
    /// How it is reached: not supported
    #[arg(long, hide = true)]
    pub(crate) backend_config: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceKind {
    #[value(name = "dir-rafs", alias = "directory")]
    Directory,
    #[value(name = "tar-rafs")]
    Tar,
    #[value(name = "targz-rafs")]
    CompressedTar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Feature {
    BlobToc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhiteoutSpec {
    /// Files `.wh.<name>`, not shown
    Oci,
    /// Kept as they are, for a merge
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressorName {
    None,
    #[value(name = "lz4_block")]
    Lz4Block,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DigesterName {
    Blake3,
    Sha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrefetchPolicy {
    Fs,
    Blob,
    None,
}

/// A power of two between the format's bounds.
fn chunk_size(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let size = parsed.map_err(|error| error.to_string())?;
    match size.is_power_of_two() && (0x1000..=0x100_0000).contains(&size) {
        true => Ok(size),
        false => Err("must be a power of two from 0x1000 to 0x1000000".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn help_of_create() -> String {
        Cli::command().find_subcommand_mut("create").unwrap().render_help().to_string()
    }

    #[test]
    fn the_help_has_the_words_that_converters_look_for_and_no_others() {
        let help = help_of_create();
        assert!(help.contains("--type tar-rafs"), "{help}");
        assert!(!help.contains("--batch-size") && !help.contains("--encrypt"), "features we do not have");
    }

    #[test]
    fn a_chunk_size_may_be_hexadecimal() {
        assert_eq!(chunk_size("0x100000"), Ok(1 << 20));
        assert_eq!(chunk_size("65536"), Ok(65536));
        assert!(chunk_size("0x100001").is_err() && chunk_size("512").is_err() && chunk_size("x").is_err());
    }

    #[test]
    fn flags_may_follow_the_sources_of_a_merge() {
        let cli = ["nydus-image", "merge", "--bootstrap", "out", "a", "b", "--blob-digests", "x,y"];
        let Command::Merge(args) = Cli::try_parse_from(cli).unwrap().command else { panic!("merge") };
        assert_eq!((args.sources.len(), args.blob_digests.len()), (2, 2));
    }
}
