#!/bin/sh
# The main job for real, in a directory of its own: installs what is missing, builds, and runs it.
set -eu
cd "$(dirname "$0")/.."
sh misc/setup/packages.sh $(cat misc/setup/build.txt misc/setup/run.txt)
cargo build --release --locked --bins -p builder -p nydusd -p shoal -p snapshotter -p integration-tests
exec "${CARGO_TARGET_DIR:-target}/release/demo"
