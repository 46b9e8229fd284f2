//! `containerd-nydus-grpc`: the snapshotter as a program.

use std::process::ExitCode;

use service::{exit, shutdown, telemetry};
use snapshotter::{cli::Cli, config::Config, run::run};

fn main() -> ExitCode {
    match exit::flags() {
        Ok(cli) => exit::report("containerd-nydus-grpc", start(cli)),
        Err(code) => code,
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let config = Config::load(cli)?;
    telemetry::start(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { run(config, shutdown::on_signal()?).await })
}
