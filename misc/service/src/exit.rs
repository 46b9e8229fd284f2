//! Exit codes: 0 done, 1 failed, 64 wrong usage or configuration.

use std::process::ExitCode;

/// Wrong flags or configuration.
pub const USAGE: u8 = 64;

/// A configuration or usage error; anyhow errors that contain one end the program with [`USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Ends `main`: prints an error with its causes on stderr in one line, and picks the exit code.
/// A broken pipe on the way out is not an error: the reader had enough.
#[must_use]
pub fn report(program: &str, result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let broken_pipe = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe);
    if broken_pipe {
        return ExitCode::SUCCESS;
    }
    eprintln!("{program}: {error:#}");
    match error.chain().any(|cause| cause.is::<UsageError>()) {
        true => ExitCode::from(USAGE),
        false => ExitCode::FAILURE,
    }
}
