//! Makes the real images in the cache and prints where they are.

use std::process::ExitCode;

use integration_tests::image::debian::Program;

fn main() -> ExitCode {
    service::exit::report("images", run())
}

#[allow(clippy::print_stdout, reason = "its result")]
fn run() -> anyhow::Result<()> {
    for program in Program::ALL {
        println!("{}", program.image()?.dir.display());
    }
    Ok(())
}
