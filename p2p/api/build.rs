//! Makes messages and services from their definitions.

fn main() -> std::io::Result<()> {
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    config.compile_protos(&["proto/peer.proto"], &["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_protos(&["proto/local.proto"], &["proto"])
}
