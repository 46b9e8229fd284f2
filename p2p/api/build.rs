//! Makes the messages from their definition.

fn main() -> std::io::Result<()> {
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    config.compile_protos(&["proto/peer.proto"], &["proto"])
}
