//! The command by the name of Dragonfly's, with its main flags.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser as _;
use service::{exit::UsageError, telemetry::LogArgs, version};

use super::Args;

const NAME: &str = "dfget";

/// Download a file by the piece network, with the flags of Dragonfly's dfget
#[derive(Debug, clap::Parser)]
#[command(name = NAME, version = version::LONG, after_help = "Examples:
  dfget https://files.example.com/model.bin -O model.bin
  dfget -u https://files.example.com/model.bin -O model.bin --digest sha256:… --rate-limit 10MiB

This is shoal get by another name; shoal get --help says more. Flags of Dragonfly's that are about its own schedulers
(--priority, --application, --tag, --filtered-query-param, --piece-length, --overwrite, --no-progress, --console,
--transfer-from-dfdaemon) are taken and have no effect; what else it has is refused.")]
struct Flags {
    /// What to download
    #[arg(value_name = "URL", required_unless_present = "url")]
    source: Option<String>,
    /// The same
    #[arg(long, short, conflicts_with = "source")]
    url: Option<String>,
    /// Where to
    #[arg(long, short = 'O', value_name = "FILE")]
    output: PathBuf,
    /// All files that the index of a web server's directory lists, and those below it; FILE is a directory then
    #[arg(long, short, conflicts_with = "digest")]
    recursive: bool,
    /// What the file must be: sha256:HEX
    #[arg(long)]
    digest: Option<String>,
    /// Bytes a second at most
    #[arg(long, alias = "ratelimit", value_name = "SIZE", value_parser = service::size::parse)]
    rate_limit: Option<u64>,
    /// Time for all of it, such as 30s, 10m or 2h
    #[arg(long, short = 'e', value_name = "TIME", value_parser = seconds)]
    timeout: Option<u64>,
    #[command(flatten)]
    ignored: Ignored,
    #[command(flatten)]
    refused: Refused,
    #[command(flatten)]
    log: LogArgs,
}

/// What means something to Dragonfly's schedulers only, or is so anyway.
#[derive(Debug, clap::Args)]
struct Ignored {
    /// There: which peer goes to the source first
    #[arg(long, short, hide = true, value_parser = clap::value_parser!(u8).range(0..=6))]
    priority: Option<u8>,
    #[arg(long, hide = true)]
    application: Option<String>,
    #[arg(long, hide = true)]
    tag: Option<String>,
    #[arg(long, alias = "filter", hide = true)]
    filtered_query_param: Vec<String>,
    #[arg(long, hide = true)]
    piece_length: Option<String>,
    #[arg(long, hide = true)]
    overwrite: bool,
    #[arg(long, hide = true)]
    no_progress: bool,
    #[arg(long, hide = true)]
    console: bool,
    #[arg(long, hide = true)]
    transfer_from_dfdaemon: bool,
}

/// What would bring something else than is asked for.
#[derive(Debug, clap::Args)]
struct Refused {
    #[arg(long, short = 'H', hide = true, value_parser = no_headers)]
    header: Vec<String>,
    #[arg(long, short = 'I', alias = "accept-regex", alias = "reject-regex", hide = true, value_parser = no_choice)]
    include_files: Vec<String>,
    #[arg(long, hide = true, value_parser = other_socket)]
    endpoint: Option<String>,
}

fn no_headers(_: &str) -> Result<String, String> {
    Err("no headers are sent here; credentials come from docker's configuration".to_owned())
}

fn no_choice(_: &str) -> Result<String, String> {
    Err("files are not chosen by name here: name each one".to_owned())
}

fn other_socket(_: &str) -> Result<String, String> {
    Err("there is no dfdaemon here; shoal get --p2p-socket names p2pd's socket".to_owned())
}

/// Whether this process was started by that name.
pub(crate) fn is_called() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.is_some_and(|name| name.file_name().is_some_and(|name| name == NAME))
}

/// The whole program.
pub(crate) fn main() -> ExitCode {
    let flags = match service::exit::flags::<Flags>() {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    service::telemetry::start(&flags.log);
    service::exit::report(
        NAME,
        args(flags).map_err(Into::into).and_then(|args| crate::cli::run(crate::cli::Command::Get(args))),
    )
}

/// What `shoal get` calls them.
fn args(flags: Flags) -> Result<Args, UsageError> {
    #[derive(clap::Parser)]
    struct Get {
        #[command(flatten)]
        args: Args,
    }
    let source = flags.source.or(flags.url).unwrap_or_default();
    let given = [NAME.into(), source.into(), "--output".into(), flags.output.into_os_string()];
    let parsed = Get::try_parse_from(given).map_err(|error| UsageError(error.to_string()))?;
    Ok(Args {
        recursive: flags.recursive,
        digest: flags.digest,
        rate_limit: flags.rate_limit,
        timeout: flags.timeout,
        ..parsed.args
    })
}

/// Seconds of `90`, `90s`, `10m`, `2h`.
fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("units are s, m and h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(unit).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_flags_of_dragonfly_are_understood_and_others_refused() {
        let parse =
            |line: &str| Flags::try_parse_from(line.split(' ')).ok().map(|flags| args(flags).unwrap());
        for line in ["dfget http://h/f -O f", "dfget -u http://h/f --output f"] {
            let args = parse(line).unwrap();
            assert_eq!((args.source.as_str(), args.output.to_str()), ("http://h/f", Some("f")));
        }
        assert!(parse("dfget http://h/d/ -O d --recursive").unwrap().recursive);
        let ignored = "dfget http://h/f -O f --priority 6 --tag t --filter a&b --overwrite --no-progress";
        assert!(parse(ignored).is_some());
        let args = parse("dfget http://h/f -O f --timeout 2h --rate-limit 1MiB --digest sha256:00").unwrap();
        assert_eq!((args.timeout, args.rate_limit), (Some(7200), Some(1 << 20)));
        assert_eq!(args.digest.as_deref(), Some("sha256:00"));
        for line in [
            "dfget -O f",
            "dfget http://h/f",
            "dfget http://h/f -O f --timeout 2d",
            "dfget http://h/f -O f --odd",
            "dfget http://h/f -O f --priority 7",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
        let header = Flags::try_parse_from(["dfget", "http://h/f", "-O", "f", "-H", "A: b"]).unwrap_err();
        assert!(header.to_string().contains("no headers are sent here"), "{header}");
    }
}
