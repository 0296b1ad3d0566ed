#!/usr/bin/env bash
# Installs, on Debian and its relatives, the programs that tests drive as foreign processes: strace counts system
# calls, redis-server, PostgreSQL, MariaDB, nginx, curl, ab, wrk and openssl are peers that know nothing of this project
# (openssl makes the certificates of tests, too), ip makes networks. A browser without a screen looks at the status page.
# And libevent, for the loop over it.
# Elsewhere it says what is missing and leaves the machine alone: the tests that need an absent program name it when
# they skip.
set -euo pipefail
. "$(dirname "$0")/apt.sh"

missing=()
for pair in strace:strace redis-server:redis-server nginx:nginx-light curl:curl openssl:openssl make:make ip:iproute2 \
    ab:apache2-utils wrk:wrk; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian keeps the programs of PostgreSQL out of PATH.
command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
command -v mariadbd >/dev/null || missing+=(mariadb-server)
# nginx answers late by this.
compgen -G '/usr/lib/nginx/modules/ngx_http_echo_module.so' >/dev/null || missing+=(libnginx-mod-http-echo)
# Where the package is called libevent-core-2.1-7t64, this name is provided by it.
python3 -c 'import ctypes; ctypes.CDLL("libevent_core-2.1.so.7")' 2>/dev/null || missing+=(libevent-core-2.1-7)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# The browser has many names: newer systems have a small one that can do no more than this.
browser=''
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && browser="$name" && break
done
[ -n "$browser" ] || missing+=('chromium-headless-shell|chromium')

install_or_tell "${missing[@]}"
