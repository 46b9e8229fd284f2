//! Directories of web servers, by the index pages that these make.

mod index;

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use service::{causes::in_one_line, exit::UsageError};
use tokio_stream::StreamExt as _;
use url::Url;

use self::index::{Entry, entries};
use super::{
    download::{Means, Report, download},
    part::WriteError,
    source::Source,
};
use crate::output;

/// Bytes of an index.
const LONGEST_PAGE: usize = 16 << 20;
/// Directories in each other: a link may lead in a circle.
const DEEPEST: usize = 32;
/// Files and directories in all.
const MOST: usize = 100_000;

/// What came of a directory.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tree {
    directory: PathBuf,
    bytes: u64,
    files: Vec<Report>,
    /// Files that were here.
    skipped: usize,
    failed: Vec<Failure>,
}

/// What did not come.
#[derive(Debug, Serialize)]
struct Failure {
    url: String,
    error: String,
}

impl Tree {
    /// Tells what did not come, and fails if there is any.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for Failure { url, error } in &self.failed {
            eprintln!("{url}: {error}");
        }
        ensure!(self.failed.is_empty(), "{} of {} did not come", self.failed.len(), self.directory.display());
        Ok(())
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, bytes, files, skipped, failed } = self;
        let (directory, bytes) = (directory.display(), output::size(*bytes));
        write!(
            f,
            "{directory}: {bytes} in {} files, {skipped} were here, {} failed",
            files.len(),
            failed.len()
        )
    }
}

/// The directory that a source is.
pub(super) fn root(source: &Source) -> Result<Url, UsageError> {
    let Source::Url(url) = source else {
        return Err(UsageError(format!("{source} is no directory: --recursive takes a URL")));
    };
    if url.query().is_some() {
        return Err(UsageError(format!("{source}: a directory's URL has no query")));
    }
    let mut url = url.clone();
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Downloads what the indexes at `root` and below name into a directory; files that are here already are left alone if
/// `continues`. Whatever does not come, the rest does, unless the disk is full.
pub(super) async fn recursive(
    means: &mut Means,
    root: Url,
    target: &Path,
    continues: bool,
) -> anyhow::Result<Tree> {
    let tree = Tree { directory: target.to_owned(), ..Tree::default() };
    let seen = HashSet::from([root.path().to_owned()]);
    let mut walk = Walk { means, root: root.clone(), target, continues, seen, left: vec![root], tree };
    let mut is_first = true;
    while let Some(dir) = walk.left.pop() {
        match walk.page(&dir).await {
            Ok(page) => {
                let named = walk.directory(&dir, &page).await?;
                ensure!(named || !is_first, "the index at {} names nothing below it", shown(&dir));
            }
            Err(error) if is_first => return Err(error.context(format!("no index at {}", shown(&dir)))),
            Err(error) => walk.failed(&dir, &error),
        }
        is_first = false;
    }
    Ok(walk.tree)
}

struct Walk<'a> {
    means: &'a mut Means,
    root: Url,
    target: &'a Path,
    continues: bool,
    /// Paths of files and directories that were named.
    seen: HashSet<String>,
    /// Directories, the next one last.
    left: Vec<Url>,
    tree: Tree,
}

impl Walk<'_> {
    async fn page(&self, dir: &Url) -> anyhow::Result<Vec<u8>> {
        let mut rest = self.means.client.rest_of_file(dir.as_str(), 0).await?;
        let mut page = Vec::new();
        while let Some(bytes) = rest.body.next().await {
            page.extend_from_slice(&bytes?);
            ensure!(page.len() <= LONGEST_PAGE, "its index is longer than {LONGEST_PAGE} bytes");
        }
        Ok(page)
    }

    /// Downloads the files that an index names and notes its directories; says whether there are any.
    async fn directory(&mut self, dir: &Url, page: &[u8]) -> anyhow::Result<bool> {
        let (entries, wrong) = entries(page, &self.root, dir);
        let named = !entries.is_empty() || !wrong.is_empty();
        for name in wrong {
            self.failed(dir, &name.into());
        }
        let mut dirs = Vec::new();
        for entry in entries {
            if self.seen.contains(entry.url.path()) {
                continue;
            }
            if self.seen.len() >= MOST {
                bail!("more than {MOST} files and directories below {}", shown(&self.root));
            }
            self.seen.insert(entry.url.path().to_owned());
            match (entry.is_dir, entry.path.components().count() > DEEPEST) {
                (true, true) => {
                    let error = anyhow::anyhow!("more than {DEEPEST} directories in each other");
                    self.failed(&entry.url, &error);
                }
                (true, false) => dirs.push(entry.url),
                (false, _) => self.file(entry).await?,
            }
        }
        self.left.extend(dirs.into_iter().rev());
        Ok(named)
    }

    async fn file(&mut self, entry: Entry) -> anyhow::Result<()> {
        let target = self.target.join(&entry.path);
        if self.continues && target.is_file() {
            self.tree.skipped += 1;
            return Ok(());
        }
        match self.fetch(&entry, &target).await {
            Ok(report) => {
                self.tree.bytes += report.bytes;
                self.tree.files.push(report);
            }
            Err(error) if error.is::<WriteError>() => {
                return Err(error.context(shown(&entry.url)));
            }
            Err(error) => self.failed(&entry.url, &error),
        }
        Ok(())
    }

    async fn fetch(&mut self, entry: &Entry, target: &Path) -> anyhow::Result<Report> {
        if let Some(dir) = target.parent() {
            let made = tokio::fs::create_dir_all(dir).await;
            made.with_context(|| format!("create {}", dir.display()))?;
        }
        // As it stands in the URL, where nothing in it can move a terminal's cursor.
        let name = entry.url.path().strip_prefix(self.root.path()).unwrap_or_default();
        let bar = self.means.bars.bar(name, 0);
        let came = download(self.means, &Source::Url(entry.url.clone()), None, (target, &bar)).await;
        self.means.bars.done(&bar, if came.is_ok() { "done" } else { "failed" });
        came
    }

    fn failed(&mut self, url: &Url, error: &anyhow::Error) {
        self.tree.failed.push(Failure { url: shown(url), error: in_one_line(error.as_ref()) });
    }
}

fn shown(url: &Url) -> String {
    Source::Url(url.clone()).to_string()
}
