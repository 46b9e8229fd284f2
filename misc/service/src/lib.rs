//! What every Shoal binary needs: logging, shutdown, sockets, sizes, version, exit codes.

pub mod causes;
pub mod exit;
pub mod shutdown;
pub mod size;
pub mod socket;
pub mod telemetry;
pub mod version;
