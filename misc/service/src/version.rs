//! What was built.

/// Version of the package.
pub const PACKAGE: &str = env!("CARGO_PKG_VERSION");
/// Commit it was built from, `unknown` outside a checkout.
pub const COMMIT: &str = env!("SHOAL_COMMIT");
/// When the commit was made: builds of one commit are alike.
pub const BUILD_TIME: &str = env!("SHOAL_BUILD_TIME");
/// Compiler.
pub const RUSTC: &str = env!("SHOAL_RUSTC");
/// `debug` or `release`.
pub const PROFILE: &str = env!("SHOAL_PROFILE");
/// For `--version`: version and commit.
pub const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SHOAL_COMMIT"), ")");
