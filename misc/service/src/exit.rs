//! Exit codes: 0 done, 1 failed, 64 wrong usage or configuration.

use std::process::ExitCode;

use crate::causes::in_one_line;

/// Wrong flags or configuration.
pub const USAGE: u8 = 64;

/// A configuration or usage error; anyhow errors that contain one end the program with [`USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Flags from the command line; what to exit with where they are wrong or ask for help, which then has been printed.
///
/// # Errors
/// The exit code.
pub fn flags<C: clap::Parser>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        // Nobody to tell where stderr is gone.
        drop(error.print());
        if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
    })
}

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
    eprintln!("{program}: {}", in_one_line(error.as_ref()));
    match error.chain().any(|cause| cause.is::<UsageError>()) {
        true => ExitCode::from(USAGE),
        false => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn code(result: anyhow::Result<()>) -> String {
        format!("{:?}", report("test", result))
    }

    #[test]
    fn a_usage_error_is_found_under_its_context() {
        let usage = Err(UsageError("no such flag".into())).context("reading flags");
        assert_eq!(code(usage), format!("{:?}", ExitCode::from(USAGE)));
        assert_eq!(code(Err(anyhow::anyhow!("other"))), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(code(Ok(())), format!("{:?}", ExitCode::SUCCESS));
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        let pipe = Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).context("printing");
        assert_eq!(code(pipe), format!("{:?}", ExitCode::SUCCESS));
    }
}
