//! The content store: blobs by digest.

use std::{collections::HashMap, time::Duration};

use anyhow::Context;
use containerd_client::services::v1::{
    Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse, content_client::ContentClient,
};
use oci_spec::image::Descriptor;
use prost_types::FieldMask;
use registry::BlobStream;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming, codegen::InterceptedService, transport::Channel};

use super::{CALL_DEADLINE, Containerd, Headers, Refusal, unless, within};

/// Bytes of one message to containerd; its limit is 16 MiB.
const MESSAGE: usize = 1 << 20;
/// How long to wait for another pull that is writing the same blob.
const LOCK_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Time between looks at a blob that another pull is writing.
const LOCK_PAUSE: Duration = Duration::from_millis(250);

/// One blob on its way into the store.
struct Ingest {
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    reference: String,
    total: i64,
    expected: String,
    written: i64,
}

/// How far the store has got with a blob.
enum Opened {
    /// It is there; the lease holds it.
    Complete,
    /// Somebody else is writing it.
    Locked,
    /// It is ours to write.
    Ours(Box<Ingest>),
}

impl Containerd {
    /// Brings a blob into the store unless it is there. containerd checks size and digest before the blob gets its name.
    ///
    /// `open` is called only when bytes are needed; `read` hears of each piece that was written.
    pub(crate) async fn ingest<F>(
        &self,
        kind: &str,
        blob: &Descriptor,
        labels: &HashMap<String, String>,
        open: impl Fn() -> F,
        read: impl Fn(u64),
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<BlobStream>>,
    {
        let digest = blob.digest().to_string();
        let deadline = Instant::now() + LOCK_DEADLINE;
        let mut ingest = loop {
            match self.begin(kind, blob).await.with_context(|| format!("cannot write {kind} {digest}"))? {
                Opened::Complete => return self.label(&digest, labels).await,
                Opened::Ours(ingest) => break ingest,
                Opened::Locked if Instant::now() < deadline => tokio::time::sleep(LOCK_PAUSE).await,
                Opened::Locked => anyhow::bail!("{kind} {digest} is still being written by another pull"),
            }
        };
        if ingest.written < ingest.total {
            // What an interrupted pull left is written over: the message at offset 0 cuts it off.
            ingest.written = 0;
            let mut stream = open().await?;
            while let Some(bytes) = stream.next().await {
                let bytes = bytes.with_context(|| format!("cannot fetch {kind} {digest}"))?;
                for message in bytes.chunks(MESSAGE) {
                    ingest
                        .write(message.to_vec())
                        .await
                        .with_context(|| format!("cannot write {kind} {digest}"))?;
                }
                read(bytes.len() as u64);
            }
        }
        let stored = unless(Code::AlreadyExists, ingest.commit(labels).await);
        match stored.with_context(|| format!("cannot store {kind} {digest}"))? {
            Some(()) => Ok(()),
            None => self.label(&digest, labels).await,
        }
    }

    /// Adds labels to a blob of the store.
    pub(crate) async fn label(&self, digest: &str, labels: &HashMap<String, String>) -> anyhow::Result<()> {
        if labels.is_empty() {
            return Ok(());
        }
        let request = UpdateRequest {
            info: Some(Info { digest: digest.to_owned(), labels: labels.clone(), ..Info::default() }),
            update_mask: Some(FieldMask {
                paths: labels.keys().map(|key| format!("labels.{key}")).collect(),
            }),
        };
        within(CALL_DEADLINE, self.contents().update(request))
            .await
            .with_context(|| format!("cannot label {digest}"))?;
        Ok(())
    }

    /// A small blob of the store, if it is there.
    pub(crate) async fn read_content(&self, digest: &str, limit: usize) -> anyhow::Result<Option<Vec<u8>>> {
        let info =
            within(CALL_DEADLINE, self.contents().info(InfoRequest { digest: digest.to_owned() })).await;
        if unless(Code::NotFound, info)?.is_none() {
            return Ok(None);
        }
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let mut stream = within(CALL_DEADLINE, self.contents().read(request)).await?;
        let mut bytes = Vec::new();
        while let Some(message) = tokio::time::timeout(CALL_DEADLINE, stream.message()).await?? {
            bytes.extend_from_slice(&message.data);
            anyhow::ensure!(
                bytes.len() <= limit,
                "{digest} in containerd's store is larger than {limit} bytes"
            );
        }
        Ok(Some(bytes))
    }

    async fn begin(&self, kind: &str, blob: &Descriptor) -> Result<Opened, Refusal> {
        let (requests, queue) = mpsc::channel(1);
        let reference = format!("{kind}-{}", blob.digest());
        let (total, expected) = (i64::try_from(blob.size()).unwrap_or(i64::MAX), blob.digest().to_string());
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            total,
            expected: expected.clone(),
            ..WriteContentRequest::default()
        };
        requests.try_send(first).expect("the queue is empty and its reader stands below");
        let mut contents = self.contents();
        let opened = async {
            let mut answers = contents.write(ReceiverStream::new(queue)).await?.into_inner();
            let first = answers.message().await?.ok_or_else(|| Status::aborted("containerd hung up"))?;
            Ok(tonic::Response::new((answers, first.offset)))
        };
        match within(CALL_DEADLINE, opened).await {
            Ok((answers, written)) => {
                Ok(Opened::Ours(Box::new(Ingest { requests, answers, reference, total, expected, written })))
            }
            Err(Refusal(status)) if status.code() == Code::AlreadyExists => Ok(Opened::Complete),
            Err(Refusal(status)) if is_locked(&status) => Ok(Opened::Locked),
            Err(refusal) => Err(refusal),
        }
    }

    fn contents(&self) -> ContentClient<InterceptedService<Channel, Headers>> {
        ContentClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }
}

impl Ingest {
    async fn write(&mut self, data: Vec<u8>) -> Result<(), Refusal> {
        let len = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let request = self.request(WriteAction::Write, data, HashMap::new());
        self.exchange(request).await?;
        self.written += len;
        Ok(())
    }

    async fn commit(mut self, labels: &HashMap<String, String>) -> Result<(), Refusal> {
        let request = self.request(WriteAction::Commit, Vec::new(), labels.clone());
        self.exchange(request).await
    }

    fn request(
        &self,
        action: WriteAction,
        data: Vec<u8>,
        labels: HashMap<String, String>,
    ) -> WriteContentRequest {
        WriteContentRequest {
            action: action.into(),
            r#ref: self.reference.clone(),
            total: self.total,
            expected: self.expected.clone(),
            offset: self.written,
            data,
            labels,
        }
    }

    /// One message there, one back: containerd's disk sets the pace.
    async fn exchange(&mut self, request: WriteContentRequest) -> Result<(), Refusal> {
        let exchange = async {
            // Where the send fails, containerd has hung up and the answer says why.
            drop(self.requests.send(request).await);
            let answer = self.answers.message().await?;
            answer.map(tonic::Response::new).ok_or_else(|| Status::aborted("containerd hung up"))
        };
        within(CALL_DEADLINE, exchange).await.map(drop)
    }
}

/// Another pull holds the same reference.
fn is_locked(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("locked")
}
