//! One file: from what is here, by the piece network, from its server.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::bail;
use indicatif::ProgressBar;
use registry::{Client, Rest, SocketMirror};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::{
    pace::Pace,
    part::{Part, WriteError},
    patience::Patience,
    source::Source,
};
use crate::{output, progress::Bars};

/// What the downloads of one run share.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) client: Client,
    pub(super) mirror: Option<SocketMirror>,
    pub(super) pace: Pace,
    pub(super) bars: Bars,
}

/// What came.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) file: PathBuf,
    pub(super) digest: String,
    pub(super) bytes: u64,
    /// Of them, those that were here from an earlier run, came by the piece network, and from the server.
    pub(super) resumed_bytes: u64,
    pub(super) p2p_bytes: u64,
    pub(super) server_bytes: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, digest, bytes, resumed_bytes, p2p_bytes, server_bytes } = self;
        let [all, resumed, p2p, server] =
            [bytes, resumed_bytes, p2p_bytes, server_bytes].map(|bytes| output::size(*bytes));
        let file = file.display();
        write!(
            f,
            "{file}: {all}, {digest} ({p2p} by the piece network, {server} from the server, {resumed} from before)"
        )
    }
}

/// Downloads one file, which must be `digest` where that is known.
pub(super) async fn download(
    means: &mut Means,
    source: &Source,
    digest: Option<&str>,
    (target, bar): (&Path, &ProgressBar),
) -> anyhow::Result<Report> {
    let part = Part::open(target, digest.is_some()).await?;
    let report = Report { resumed_bytes: part.len(), ..Report::default() };
    let mut download = Download { means, part, bar, report };
    let found = download.whole(source, digest).await;
    let Download { part, mut report, .. } = download;
    let found = match found {
        Ok(found) => found,
        Err(error) if part.len() == 0 => {
            part.discard()?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    if let Some(digest) = digest.filter(|digest| *digest != found) {
        part.discard()?;
        bail!("{source} is {found}, not {digest}: its server has something else");
    }
    (report.bytes, report.digest, report.file) = (part.len(), found, target.to_owned());
    part.keep().await?;
    Ok(report)
}

struct Download<'a> {
    means: &'a mut Means,
    part: Part,
    bar: &'a ProgressBar,
    report: Report,
}

impl Download<'_> {
    /// Fetches what is missing, or all of it where what is here is wrong; says the digest of all of it.
    async fn whole(&mut self, source: &Source, digest: Option<&str>) -> anyhow::Result<String> {
        let found = self.run(source, digest, true).await?;
        if digest.is_none_or(|digest| digest == found) || !self.may_differ(source) {
            return Ok(found);
        }
        self.means.bars.line("what came is not what its digest says: all of it comes again, from the server");
        self.restart()?;
        self.run(source, digest, false).await
    }

    /// Fetches what is missing; says the digest of all of it.
    async fn run(
        &mut self,
        source: &Source,
        digest: Option<&str>,
        by_network: bool,
    ) -> anyhow::Result<String> {
        self.bar.set_position(self.part.len());
        if let (true, Some(mirror)) = (by_network, self.means.mirror.clone()) {
            let came = match source.ask(&mirror, digest, self.part.len()).await {
                // It is not for the network.
                Ok(None) => Ok(false),
                Ok(Some(rest)) => self.take_from_network(rest).await.map(|()| true),
                Err(error) => Err(error.into()),
            };
            match came {
                Ok(true) => return Ok(self.part.digest()),
                Ok(false) => {}
                Err(error) if error.is::<WriteError>() => return Err(error),
                Err(error) => tracing::warn!("the piece network did not give all of it: {error:#}"),
            }
            if digest.is_none() && self.part.len() > 0 {
                // Nobody could tell that its begin is of another version than what its server has now.
                self.restart()?;
            }
        }
        let mut rest = source.open(&self.means.client, self.part.len()).await?;
        self.begin(&rest)?;
        while let Some(bytes) = rest.body.next().await {
            self.report.server_bytes += self.keep(&bytes?, rest.total).await?;
        }
        Ok(self.part.digest())
    }

    async fn take_from_network(&mut self, mut rest: Rest) -> anyhow::Result<()> {
        self.begin(&rest)?;
        let mut patience = Patience::default();
        while let Some(bytes) = patience.next(&mut rest.body).await? {
            self.report.p2p_bytes += self.keep(&bytes?, rest.total).await?;
        }
        Ok(())
    }

    /// Makes ready for what comes.
    fn begin(&mut self, rest: &Rest) -> anyhow::Result<()> {
        if rest.start != self.part.len() {
            self.restart()?;
        }
        if let Some(total) = rest.total {
            self.bar.set_length(total);
            self.part.expect(total)?;
        }
        Ok(())
    }

    /// Adds what came, at the pace that is wanted; says how much it is.
    async fn keep(&mut self, bytes: &[u8], total: Option<u64>) -> anyhow::Result<u64> {
        let len = bytes.len() as u64;
        if let Some(total) = total.filter(|total| self.part.len() + len > *total) {
            bail!("more comes than the {total} bytes that were promised");
        }
        self.means.pace.wait(bytes.len()).await;
        self.part.write(bytes)?;
        self.bar.inc(len);
        Ok(len)
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.report = Report::default();
        self.bar.set_position(0);
        self.part.restart()
    }

    /// Whether another try, from the server alone, may bring other bytes: what was here before, what the network gave, and
    /// what a mirror gave may be wrong.
    fn may_differ(&self, source: &Source) -> bool {
        let is_elsewhere = match source {
            Source::Blob { repository, digest } => {
                self.means.client.distrust(repository, digest, &(0..self.part.len()))
            }
            Source::Url(_) => false,
        };
        is_elsewhere || self.report.server_bytes < self.part.len()
    }
}
