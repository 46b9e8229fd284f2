//! Real images, made of Debian packages: a base, the packages, and an application with deletions and hard links.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Layer, Layout, layer, layout::Form};
use crate::{
    cache,
    command::{command, run},
};

/// Part of every key: raised when the way of making images changes.
const RECIPE: &str = "1";
/// Keys of Debian's archive, part of every Debian.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A program to run, and what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Python with flask, numpy and requests.
    Python,
    /// The web server.
    Nginx,
    /// The database.
    Redis,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Python, Self::Nginx, Self::Redis];

    /// Its name in repositories, directories and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Nginx => "nginx",
            Self::Redis => "redis",
        }
    }

    /// The command that prints a line with `ready` in it.
    #[must_use]
    pub const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["python3", "/srv/start"],
            Self::Nginx | Self::Redis => &["sh", "/srv/start"],
        }
    }

    const fn packages(self) -> &'static str {
        match self {
            Self::Python => "python3 python3-flask python3-numpy python3-requests",
            Self::Nginx => "nginx",
            Self::Redis => "redis-server",
        }
    }

    const fn workload(self) -> &'static str {
        match self {
            Self::Python => include_str!("../../workloads/python.py"),
            Self::Nginx => include_str!("../../workloads/nginx.sh"),
            Self::Redis => include_str!("../../workloads/redis.sh"),
        }
    }

    /// Changes of the last layer: files and directories deleted, a directory replaced, hard links within and across
    /// layers, odd kinds of files.
    fn script(self) -> String {
        let attributes = match self {
            Self::Python => {
                "python3 -c \"import os; os.setxattr('/srv/start', 'user.origin', b'shoal'); \
                 os.setxattr('/srv/tool', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))\"\n"
            }
            Self::Nginx | Self::Redis => "",
        };
        format!(
            "cat >/srv/start <<'EOF'\n{}\nEOF\n\
             cp /bin/true /srv/tool; chmod 4755 /srv/tool; ln /srv/tool /srv/tool.again\n\
             ln /usr/bin/perl /srv/perl; ln -s ../usr/bin/perl /srv/perl.link\n\
             mkfifo -m 600 /srv/pipe; mknod /srv/null c 1 3; mkdir -m 1777 /srv/shared; chown 1000:2000 /srv/shared\n\
             rm -rf /usr/share/doc/apt /usr/share/man; mkdir /usr/share/man; echo gone >/usr/share/man/README\n\
             rm /etc/issue.net /usr/bin/tzselect\n\
             touch '/srv/name with spaces' /srv/{}\n{attributes}",
            self.workload(),
            "n".repeat(200),
        )
    }

    /// The image, out of the cache or freshly made.
    ///
    /// # Errors
    /// Where the packages cannot be had, or the tree not be made.
    pub fn image(self) -> Result<Layout> {
        let (suite, script) = (suite()?, self.script());
        let recipe = [RECIPE, &suite, self.packages(), &script, include_str!("packages.sh")].join("\n");
        let name = format!("images/{}", self.name());
        let dir = cache::once(&name, &recipe, |dir| self.make(dir, &suite, &script))?;
        Ok(Layout { dir })
    }

    fn make(self, dir: &Path, suite: &str, script: &str) -> Result<()> {
        let base = Base::get(suite)?;
        let layout = Layout::create(dir)?;
        layout.copy_layer(&base.layout, &base.layer)?;
        let stage = tempfile::tempdir_in(dir)?;
        let packages = Upper::fill(&stage.path().join("packages"), &[&base.tree], self.packages(), "")?;
        let app = Upper::fill(&stage.path().join("app"), &[&packages.tree, &base.tree], "", script)?;
        let layers = [
            base.layer,
            layout.add_layer(Form::Gzip, |out| layer::write(&packages.tree, out))?,
            layout.add_layer(Form::Gzip, |out| layer::write(&app.tree, out))?,
        ];
        layout.finish(&layers, self.args())
    }
}

/// An image of the smallest Debian, which sleeps.
///
/// # Errors
/// Where the packages cannot be had.
pub fn base() -> Result<Layout> {
    Ok(Base::get(&suite()?)?.layout)
}

/// The smallest Debian, as a tree to build on and as a layer.
struct Base {
    tree: PathBuf,
    layout: Layout,
    layer: Layer,
}

impl Base {
    fn get(suite: &str) -> Result<Self> {
        let dir = cache::once("base", &[RECIPE, suite, "sleeps"].join("\n"), |dir| Self::make(dir, suite))?;
        let layout = Layout { dir: dir.join("layout") };
        let (_, manifest) = layout.manifest()?;
        let descriptor = manifest.layers().first().context("the base has a layer")?.clone();
        let diff_id = fs::read_to_string(dir.join("diff_id"))?;
        Ok(Self { tree: dir.join("tree"), layout, layer: Layer { descriptor, diff_id } })
    }

    fn make(dir: &Path, suite: &str) -> Result<()> {
        let (tree, sources) = (dir.join("tree"), dir.join("sources.list"));
        fs::write(&sources, sources_list(suite)?)?;
        let mut mmdebstrap = command("mmdebstrap", ["--variant=minbase", "--mode=root", suite]);
        run(here_only(mmdebstrap.arg(&tree).arg(&sources).env("LC_ALL", "C.UTF-8")))?;
        let layout = Layout::create(&dir.join("layout"))?;
        let layer = layout.add_layer(Form::Gzip, |out| layer::write(&tree, out))?;
        fs::write(dir.join("diff_id"), &layer.diff_id)?;
        layout.finish(&[layer], &["sleep", "infinity"])
    }
}

/// What one step of the recipe adds to the trees below it.
struct Upper {
    tree: PathBuf,
}

impl Upper {
    fn fill(dir: &Path, lower: &[&Path], packages: &str, script: &str) -> Result<Self> {
        let tree = dir.join("upper");
        for dir in [&tree, &dir.join("work"), &dir.join("root")] {
            fs::create_dir_all(dir)?;
        }
        let lower: Vec<_> = lower.iter().map(|dir| dir.to_string_lossy()).collect();
        let mut step = unshared_shell(include_str!("packages.sh"));
        step.env("LOWER", lower.join(":")).env("UPPER", &tree).env("WORK", dir.join("work"));
        step.env("ROOT", dir.join("root")).env("PACKAGES", packages).env("SCRIPT", script);
        run(here_only(&mut step))?;
        Ok(Self { tree })
    }
}

fn unshared_shell(script: &str) -> Command {
    command("unshare", ["--mount", "--propagation", "private", "sh", "-euc", script])
}

/// Takes the names of this machine's directories away from a command that works in another root.
fn here_only(command: &mut Command) -> &mut Command {
    ["TMPDIR", "TMP", "TEMP"].iter().for_each(|name| _ = command.env_remove(name));
    command
}

/// Codename of this machine's Debian.
fn suite() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let line = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(line.context("/etc/os-release names no codename")?.trim_matches('"').to_owned())
}

/// This machine's Debian mirrors, as apt knows them.
///
/// # Errors
/// Where apt knows none for this release.
pub fn mirrors() -> Result<Vec<(String, String, String)>> {
    let targets = run(&mut command(
        "apt-get",
        ["indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
    ))?;
    let mut all: Vec<_> = targets
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            Some((words.next()?, words.next()?, words.next()?))
        })
        .collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// This machine's mirror of Debian itself.
///
/// # Errors
/// Where apt knows none.
pub fn mirror() -> Result<String> {
    let suite = suite()?;
    let found = mirrors()?.into_iter().find(|(_, release, _)| *release == suite);
    Ok(found.with_context(|| format!("apt knows no mirror of Debian {suite}"))?.0)
}

fn sources_list(suite: &str) -> Result<String> {
    let wanted = [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")];
    let lines: Vec<_> = mirrors()?
        .into_iter()
        .filter(|(_, release, component)| wanted.contains(release) && component == "main")
        .map(|(site, release, component)| format!("deb [signed-by={KEYRING}] {site} {release} {component}\n"))
        .collect();
    ensure!(
        lines.iter().any(|line| line.contains(&format!(" {suite} "))),
        "apt knows no mirror of Debian {suite}"
    );
    Ok(lines.concat())
}
