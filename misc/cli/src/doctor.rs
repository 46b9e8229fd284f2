//! `shoal doctor`: one line for each thing that lazy images need, and what to do where it is missing.

mod containerd;
mod machine;

use serde::Serialize;

use crate::{containerd::ContainerdArgs, output};

/// Flags of `shoal doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  shoal doctor
  shoal doctor --address /run/k3s/containerd/containerd.sock --json

Ends with 1 where something must be repaired; warnings do not count.")]
pub(crate) struct Args {
    #[command(flatten)]
    containerd: ContainerdArgs,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Good.
    Ok,
    /// Works, but not in every way.
    Warn,
    /// Lazy images do not work.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    verdict: Verdict,
    what: &'static str,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

impl Check {
    /// All is well.
    pub(crate) fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what, found: found.into(), advice: None }
    }

    /// It could be better.
    pub(crate) fn warn(what: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { verdict: Verdict::Warn, what, found: found.into(), advice: Some(advice) }
    }

    /// It must be repaired.
    pub(crate) fn fail(what: &'static str, found: impl Into<String>, advice: &'static str) -> Self {
        Self { verdict: Verdict::Fail, what, found: found.into(), advice: Some(advice) }
    }
}

/// Checks.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let mut checks = machine::checks();
    checks.extend(containerd::checks(&args.containerd).await);
    match args.json {
        true => output::json(&checks)?,
        false => show(&checks)?,
    }
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", checks.len());
    Ok(())
}

fn show(checks: &[Check]) -> std::io::Result<()> {
    for check in checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        output::line(format!("{mark} {}: {}", check.what, check.found))?;
        if let Some(advice) = check.advice {
            output::line(format!("     {advice}"))?;
        }
    }
    Ok(())
}
