//! Asks git and the compiler what is being built.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/refs/heads");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    set("SHOAL_COMMIT", said("git", &["rev-parse", "--short=12", "HEAD"]));
    set("SHOAL_BUILD_TIME", said("git", &["show", "-s", "--format=%cI", "HEAD"]));
    set("SHOAL_RUSTC", said(&rustc, &["--version"]));
    set("SHOAL_PROFILE", std::env::var("PROFILE").ok());
}

fn set(name: &str, value: Option<String>) {
    println!("cargo::rustc-env={name}={}", value.unwrap_or_else(|| "unknown".into()));
}

fn said(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok().filter(|out| out.status.success())?;
    let text = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
