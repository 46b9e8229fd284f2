#!/bin/sh
# Starts redis on a unix socket and says when it answers there.
set -eu
mkdir -p /run/start
redis-server --port 0 --unixsocket /run/start/redis.sock --dir /run/start --save '' &
until redis-cli -s /run/start/redis.sock ping 2>/dev/null; do :; done
echo ready
[ "${KEEP:-}" ] && wait
kill "$!"
