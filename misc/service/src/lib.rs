//! What every Shoal binary needs: logging, shutdown, version, exit codes.

pub mod exit;
pub mod shutdown;
pub mod telemetry;
pub mod version;
