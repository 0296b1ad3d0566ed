# For other scripts to source: install_or_tell PACKAGE… installs packages on Debian and its relatives. `one|other` is the first
# that there is. Elsewhere, and where it may not, it says what is missing and leaves the machine alone; it never fails.

install_or_tell() {
    if [ $# -eq 0 ]; then
        return
    elif ! command -v apt-get >/dev/null; then
        echo "no apt-get here; not installed: $*"
    elif [ "$(id -u)" -ne 0 ]; then
        echo "not root; not installed: $*"
    else
        echo "installing $*"
        _install "$@" || echo "apt-get failed; not installed: $*"
    fi
}

# In a subshell, for its trap. Packages of servers start them, which nobody has asked for: a policy forbids it meanwhile.
_install() (
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    fi
    apt-get update -qq || return 1
    packages=()
    for package in "$@"; do
        while [[ "$package" == *'|'* ]] && ! apt-cache show "${package%%|*}" >/dev/null 2>&1; do
            package="${package#*|}"
        done
        packages+=("${package%%|*}")
    done
    apt-get install -qq --yes --no-install-recommends "${packages[@]}" >/dev/null
)
