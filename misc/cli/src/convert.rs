//! `shoal convert`: thin over the builder's library.

mod shown;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use builder::{Compressor, ConvertOptions, DigestAlgorithm, Platforms, Report};
use clap::ValueEnum;
use service::{exit::UsageError, shutdown, size};

use crate::{output, platform::Platform, registries::RegistryArgs};

/// Flags of `shoal convert`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  shoal convert docker.io/library/redis:7 registry.example.com/redis:7-lazy
  shoal convert --all-platforms oci:./layout:latest oci-archive:lazy.tar:latest
  shoal convert --prefetch files.txt --json app:1 registry.example.com/app:1-lazy

SOURCE and TARGET are REGISTRY/NAME:TAG, oci:DIR[:TAG] or oci-archive:FILE[:TAG].")]
pub(crate) struct Args {
    /// The image to read
    source: String,
    /// The image to write
    target: String,
    /// Variants of a multi-platform image: os/arch[/variant], again for each (default: this machine's)
    #[arg(long, value_delimiter = ',', conflicts_with = "all_platforms")]
    platform: Vec<String>,
    /// Every variant of a multi-platform image
    #[arg(long)]
    all_platforms: bool,
    /// Bytes of a chunk, the unit that is fetched: a power of two from 4KiB to 16MiB
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = chunk_size)]
    chunk_size: u32,
    /// How chunks are compressed
    #[arg(long, value_enum, default_value = "zstd")]
    compressor: CompressorArg,
    /// How chunks are checked
    #[arg(long, value_enum, default_value = "blake3")]
    digest: DigestArg,
    /// Files to fetch ahead: absolute paths, one a line, in the order of use; see shoal trace
    #[arg(long, value_name = "FILE")]
    prefetch: Option<PathBuf>,
    /// Threads that compress (default: one a core)
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Directory of temporary files
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Compressors by their names on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressorArg {
    Zstd,
    #[value(alias = "lz4_block")]
    Lz4,
    None,
}

/// Digests by their names on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DigestArg {
    Blake3,
    Sha256,
}

impl Args {
    fn options(self) -> Result<ConvertOptions, UsageError> {
        for platform in &self.platform {
            Platform::parse(platform)?;
        }
        let platforms = match (self.all_platforms, self.platform.is_empty()) {
            (true, _) => Platforms::All,
            (false, true) => Platforms::Host,
            (false, false) => Platforms::Listed(self.platform),
        };
        Ok(ConvertOptions {
            source: self.source,
            target: self.target,
            platforms,
            chunk_size: self.chunk_size,
            compressor: match self.compressor {
                CompressorArg::Zstd => Compressor::Zstd,
                CompressorArg::Lz4 => Compressor::Lz4Block,
                CompressorArg::None => Compressor::None,
            },
            digest: match self.digest {
                DigestArg::Blake3 => DigestAlgorithm::Blake3,
                DigestArg::Sha256 => DigestAlgorithm::Sha256,
            },
            prefetch: self.prefetch,
            jobs: self.jobs.map_or(0, usize::from),
            client: self.registries.options(),
            work_dir: self.work_dir,
        })
    }
}

/// Converts.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let json = args.json;
    let options = args.options()?;
    let what = format!("cannot convert {}", options.source);
    let stop = shutdown::on_signal().context("cannot listen to signals")?;
    let converted = tokio::select! {
        result = builder::convert(options, Arc::new(shown::Shown::new())) => match result {
            Err(error) if error.is_usage() => return Err(UsageError(format!("{:#}", anyhow::Error::new(error))).into()),
            result => result.context(what)?,
        },
        () = stop.cancelled() => anyhow::bail!("interrupted; nothing was tagged"),
    };
    if json {
        return output::json(&converted);
    }
    show(&converted)?;
    Ok(())
}

fn show(report: &Report) -> std::io::Result<()> {
    output::line(format!("{} is {}", report.target, report.digest))?;
    for image in &report.images {
        output::line(format!(
            "{}: {} layers, {} became {} and a bootstrap of {}",
            image.platform,
            image.layers.len(),
            output::size(image.source_size),
            output::size(image.blobs_size),
            output::size(image.bootstrap_size),
        ))?;
    }
    Ok(())
}

/// Reads `262144`, `256KiB`, `1MiB`.
fn chunk_size(text: &str) -> Result<u32, String> {
    let bytes: u32 = size::parse(text)?.try_into().map_err(|_| "too large")?;
    match bytes.is_power_of_two() && (4 << 10..=16 << 20).contains(&bytes) {
        true => Ok(bytes),
        false => Err("it must be a power of two from 4KiB to 16MiB".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    fn options(flags: &[&str]) -> ConvertOptions {
        let flags = ["convert", "a:1", "oci:b"].iter().chain(flags);
        Alone::try_parse_from(flags).unwrap().args.options().unwrap()
    }

    #[test]
    fn defaults_are_zstd_blake3_and_the_builders_chunk_size() {
        let options = options(&[]);
        assert_eq!(options.compressor, Compressor::Zstd);
        assert_eq!(options.digest, DigestAlgorithm::Blake3);
        assert_eq!(options.chunk_size, ConvertOptions::DEFAULT_CHUNK_SIZE);
        assert_eq!(options.platforms, Platforms::Host);
    }

    #[test]
    fn platforms_are_listed_or_all() {
        let listed = options(&["--platform", "linux/amd64,linux/arm64"]).platforms;
        assert_eq!(listed, Platforms::Listed(vec!["linux/amd64".into(), "linux/arm64".into()]));
        assert_eq!(options(&["--all-platforms"]).platforms, Platforms::All);
    }

    #[test]
    fn chunk_sizes_are_powers_of_two_within_the_format() {
        assert_eq!(chunk_size("1MiB"), Ok(1 << 20));
        assert_eq!(chunk_size("4096"), Ok(4096));
        for text in ["0", "2KiB", "32MiB", "3MiB", "1GiB", "99999999MiB", "", "KiB"] {
            assert!(chunk_size(text).is_err(), "{text}");
        }
    }
}
