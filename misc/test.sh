#!/bin/sh
# Every check there is: what a change must pass. Installs what is missing.
set -eu
cd "$(dirname "$0")/.."
sh misc/setup/packages.sh $(cat misc/setup/build.txt misc/setup/run.txt misc/setup/test.txt)
exec cargo xtask ci
