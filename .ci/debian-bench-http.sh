#!/usr/bin/env bash
# Installs, on Debian and its relatives, what `make bench-http` uses beside Python packages: wrk makes the load, nginx is a
# peer, strace counts system calls, a C compiler builds the load that connects slowly. Series are pinned: another one is another
# judge. Go is a peer where it is installed, and too large to be installed for that.
# Nothing depends on it: elsewhere it says what is missing, and the benchmark leaves that out or says why it cannot run.
set -euo pipefail
. "$(dirname "$0")/apt.sh"

missing=()
for pair in 'wrk:wrk=4.*' 'nginx:nginx-light=1.*' 'strace:strace=*' 'cc:gcc=*' 'taskset:util-linux=*'; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
# A C compiler alone has no headers.
[[ " ${missing[*]:-} " != *' gcc='* ]] || missing+=('libc6-dev=*')

install_or_tell "${missing[@]}"
