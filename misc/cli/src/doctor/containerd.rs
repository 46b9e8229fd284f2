//! containerd and its view of the snapshotter.

use super::Check;
use crate::{
    containerd::{Containerd, ContainerdArgs, Plugin},
    setup::Generation,
};

const SETUP: &str = "see shoal setup --print, then restart containerd";
/// Tells containerd 2.1 and later to name the image to the snapshotter.
const EXPORT: &str = "enable_remote_snapshot_annotations";

/// All of them, as far as containerd answers.
pub(super) async fn checks(args: &ContainerdArgs) -> Vec<Check> {
    let containerd = match Containerd::connect(args).await {
        Ok(containerd) => containerd,
        Err(error) => {
            return vec![Check::fail(
                "containerd",
                format!("{error:#}"),
                "start it, or name its socket with --address",
            )];
        }
    };
    let version = match containerd.version().await {
        Ok(version) => version,
        Err(error) => {
            return vec![Check::fail("containerd", format!("{error:#}"), "is that containerd's socket?")];
        }
    };
    let generation = Generation::parse(&version).ok();
    let mut checks = vec![match generation {
        Some(_) => Check::ok("containerd", format!("{version} at {}", args.address.display())),
        None => Check::warn("containerd", version, "1.6, 1.7 and 2.x are tried"),
    }];
    match containerd.snapshotters().await {
        Ok(plugins) => checks.extend(plugin(&plugins, &args.snapshotter, generation)),
        Err(error) => checks.push(Check::fail("plugins", format!("{error:#}"), SETUP)),
    }
    checks.push(match containerd.ping_snapshotter().await {
        Ok(()) => Check::ok("snapshotter", format!("{} answers", args.snapshotter)),
        Err(error) => Check::fail("snapshotter", format!("{error:#}"), "start containerd-nydus-grpc"),
    });
    checks
}

fn plugin(plugins: &[Plugin], name: &str, generation: Option<Generation>) -> Vec<Check> {
    let Some(plugin) = plugins.iter().find(|plugin| plugin.name == name) else {
        return vec![Check::fail("plugin", format!("containerd knows no snapshotter {name}"), SETUP)];
    };
    if let Some(problem) = &plugin.problem {
        return vec![Check::fail("plugin", format!("{name}: {problem}"), SETUP)];
    }
    let mut checks = vec![Check::ok("plugin", format!("containerd knows {name}"))];
    if generation == Some(Generation::Two) {
        let labelled = plugin.exports.iter().any(|(key, value)| key == EXPORT && value == "true");
        checks.push(match labelled {
            true => Check::ok("transfer service", "tells the snapshotter about images"),
            false => Check::warn("transfer service", format!("{EXPORT} is not set"), SETUP),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn known(problem: Option<&str>, exports: &[(&str, &str)]) -> Vec<Plugin> {
        vec![Plugin {
            name: "nydus".into(),
            problem: problem.map(Into::into),
            exports: exports.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        }]
    }

    fn verdicts(plugins: &[Plugin], generation: Generation) -> Vec<Verdict> {
        plugin(plugins, "nydus", Some(generation)).into_iter().map(|check| check.verdict).collect()
    }

    #[test]
    fn an_unknown_or_broken_snapshotter_must_be_repaired() {
        assert_eq!(verdicts(&[], Generation::One), [Verdict::Fail]);
        assert_eq!(verdicts(&known(Some("no such socket"), &[]), Generation::One), [Verdict::Fail]);
    }

    #[test]
    fn only_containerd_2_needs_the_export() {
        assert_eq!(verdicts(&known(None, &[]), Generation::One), [Verdict::Ok]);
        assert_eq!(verdicts(&known(None, &[]), Generation::Two), [Verdict::Ok, Verdict::Warn]);
        assert_eq!(verdicts(&known(None, &[(EXPORT, "true")]), Generation::Two), [Verdict::Ok, Verdict::Ok]);
    }
}
