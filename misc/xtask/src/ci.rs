//! The order of checks: what fails fast comes first.

use anyhow::Result;

use crate::{
    deny, limits,
    step::{cargo, run},
};

/// Packages whose tests need neither root nor other programs.
const QUICK: [&str; 9] =
    ["rafs", "storage", "registry", "nydusd-api", "service", "builder", "p2p", "swarm", "xtask"];
const PROGRAMS: [&str; 10] =
    ["-p", "builder", "-p", "nydusd", "-p", "shoal", "-p", "snapshotter", "-p", "integration-tests"];

/// The quick loop.
pub(crate) fn check() -> Result<()> {
    style()?;
    let packages: Vec<_> = QUICK.iter().flat_map(|name| ["-p", name]).collect();
    run("test", cargo(&["test", "--quiet"]).args(packages))
}

/// Everything.
pub(crate) fn all() -> Result<()> {
    style()?;
    deny::check()?;
    run("test", &mut cargo(&["test", "--workspace", "--locked"]))
}

/// The tests that run real programs.
pub(crate) fn end_to_end(test: Option<&str>) -> Result<()> {
    let mut tests = cargo(&["test", "-p", "integration-tests"]);
    match test {
        Some(name) => run("test", tests.args(["--test", name])),
        None => run("test", &mut tests),
    }
}

/// Builds with optimisation, then measures.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    if let Some((_, args)) = args.split_first().filter(|(what, _)| *what == "p2p") {
        run("build", &mut cargo(&["build", "--release", "--bins", "-p", "p2p"]))?;
        let bench = ["run", "--release", "--quiet", "-p", "swarm", "--bin", "bench-p2p", "--"];
        return run("bench", cargo(&bench).args(args));
    }
    run("build", cargo(&["build", "--release", "--bins"]).args(PROGRAMS))?;
    run(
        "bench",
        cargo(&["run", "--release", "--quiet", "-p", "integration-tests", "--bin", "bench", "--"]).args(args),
    )
}

/// Builds the simulator with optimisation, then runs it.
pub(crate) fn sim(args: &[String]) -> Result<()> {
    run("sim", cargo(&["run", "--release", "--quiet", "-p", "swarm", "--bin", "sim", "--"]).args(args))
}

fn style() -> Result<()> {
    run("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    limits::check()?;
    run("lint", &mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}
