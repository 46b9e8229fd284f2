#!/bin/sh
# Starts nginx on a unix socket and says when it answers there.
set -eu
mkdir -p /run/start
cat >/run/start/nginx.conf <<CONF
daemon off;
pid /run/start/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
    include /etc/nginx/mime.types;
    access_log off;
    server { listen unix:/run/start/http.sock; root /var/www/html; }
}
CONF
nginx -c /run/start/nginx.conf &
until [ -S /run/start/http.sock ]; do :; done
echo ready
[ "${KEEP:-}" ] && wait
kill "$!"
