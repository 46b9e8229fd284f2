//! A small client of the Kubernetes container runtime interface.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PullImageRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::transport::{Channel, Endpoint, Uri};

const DEADLINE: Duration = Duration::from_secs(120);

/// A connection to containerd's CRI.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
}

/// A pod with one container.
#[derive(Debug)]
pub struct Pod {
    sandbox: String,
    container: String,
}

impl Cri {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let endpoint = Endpoint::from_static("http://containerd").timeout(DEADLINE);
        let channel =
            runtime.block_on(endpoint.connect_with_connector(connector)).context("connect to CRI")?;
        Ok(Self { runtime, channel })
    }

    /// Pulls an image.
    ///
    /// # Errors
    /// What containerd tells.
    pub fn pull(&self, image: &str) -> Result<()> {
        let mut client = ImageServiceClient::new(self.channel.clone());
        let request = PullImageRequest { image: Some(spec(image)), ..PullImageRequest::default() };
        self.runtime.block_on(client.pull_image(request)).context("CRI PullImage")?;
        Ok(())
    }

    /// Runs a pod in the host's network with a container of `image`.
    ///
    /// # Errors
    /// What containerd tells.
    pub fn run(&self, image: &str, args: &[&str]) -> Result<Pod> {
        let config = sandbox();
        let mut client = RuntimeServiceClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let request =
                RunPodSandboxRequest { config: Some(config.clone()), ..RunPodSandboxRequest::default() };
            let sandbox = client
                .run_pod_sandbox(request)
                .await
                .context("CRI RunPodSandbox")?
                .into_inner()
                .pod_sandbox_id;
            let request = CreateContainerRequest {
                pod_sandbox_id: sandbox.clone(),
                config: Some(container(image, args)),
                sandbox_config: Some(config),
            };
            let container = client
                .create_container(request)
                .await
                .context("CRI CreateContainer")?
                .into_inner()
                .container_id;
            let request = StartContainerRequest { container_id: container.clone() };
            client.start_container(request).await.context("CRI StartContainer")?;
            Ok(Pod { sandbox, container })
        })
    }

    /// Runs a program in a pod's container; its stdout.
    ///
    /// # Errors
    /// What containerd tells, or an exit code other than 0.
    pub fn exec(&self, pod: &Pod, args: &[&str]) -> Result<String> {
        let mut client = RuntimeServiceClient::new(self.channel.clone());
        let cmd = args.iter().map(ToString::to_string).collect();
        let request = ExecSyncRequest { container_id: pod.container.clone(), cmd, timeout: 60 };
        let answer = self.runtime.block_on(client.exec_sync(request)).context("CRI ExecSync")?.into_inner();
        ensure!(answer.exit_code == 0, "{args:?}: {}", String::from_utf8_lossy(&answer.stderr));
        Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
    }

    /// Ends a pod.
    ///
    /// # Errors
    /// What containerd tells.
    pub fn remove(&self, pod: &Pod) -> Result<()> {
        let mut client = RuntimeServiceClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let request = StopPodSandboxRequest { pod_sandbox_id: pod.sandbox.clone() };
            client.stop_pod_sandbox(request).await.context("CRI StopPodSandbox")?;
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod.sandbox.clone() };
            client.remove_pod_sandbox(request).await.context("CRI RemovePodSandbox")?;
            Ok(())
        })
    }
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}

/// The pod shares the host's network: no network plugin is needed.
fn node_namespaces() -> NamespaceOption {
    NamespaceOption { network: NamespaceMode::Node.into(), ..NamespaceOption::default() }
}

fn sandbox() -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "pod".to_owned(),
            uid: "1".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(node_namespaces()),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

fn container(image: &str, args: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "container".to_owned(), attempt: 0 }),
        image: Some(spec(image)),
        command: args.iter().map(ToString::to_string).collect(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(node_namespaces()),
                ..LinuxContainerSecurityContext::default()
            }),
            ..LinuxContainerConfig::default()
        }),
        ..ContainerConfig::default()
    }
}
