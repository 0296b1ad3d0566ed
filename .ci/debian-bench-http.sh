#!/usr/bin/env bash
# Installs, on Debian and its relatives, what `make bench-http` uses beside Python packages: wrk makes the load, nginx is a
# peer, strace counts system calls, a C compiler builds the load that connects slowly. Series are pinned: another one is another
# judge. Go is a peer where it is installed, and too large to be installed for that.
# Nothing depends on it: elsewhere it says what is missing, and the benchmark leaves that out or says why it cannot run.
set -euo pipefail

missing=()
for pair in 'wrk:wrk=4.*' 'nginx:nginx-light=1.*' 'strace:strace=*' 'cc:gcc=*' 'taskset:util-linux=*'; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
# A C compiler alone has no headers.
[[ " ${missing[*]:-} " != *' gcc='* ]] || missing+=('libc6-dev=*')

if [ ${#missing[@]} -eq 0 ]; then
    exit 0
elif ! command -v apt-get >/dev/null; then
    echo "no apt-get here; not installed: ${missing[*]}"
elif [ "$(id -u)" -ne 0 ]; then
    echo "not root; not installed: ${missing[*]}"
else
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # The package of nginx starts a web server on port 80, which nobody has asked for.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    { apt-get update -qq && apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null; } ||
        echo "apt-get failed; not installed: ${missing[*]}"
fi
