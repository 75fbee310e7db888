# shellcheck shell=bash
# What scripts/quickstart and scripts/test share. Sourced, never run.

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: run as root: $*"
    fi
}

# The packages there were before this run installed any.
PACKAGES_BEFORE=

# apt_install PACKAGE...: quiet unless it fails, and asks nothing.
apt_install() {
    local log
    have apt-get || die "missing here: $*. Install them with this system's package manager, then run this again."
    [ -n "$PACKAGES_BEFORE" ] || PACKAGES_BEFORE=$(packages)
    log=$(mktemp)
    printf 'Installing %s ...\n' "$*" >&2
    if ! { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        die "apt-get could not install $*: see above"
    fi
    rm -f "$log"
}

packages() { dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | awk '$1 == "ii" { print $2 }' | LC_ALL=C sort -u; }

# What apt_install has brought, on one line.
packages_installed() {
    [ -z "$PACKAGES_BEFORE" ] || LC_ALL=C comm -13 <(printf '%s\n' "$PACKAGES_BEFORE") <(packages) | paste -sd ' ' -
}

# The newest directory that holds a PostgreSQL server's programs, and the client's: Debian keeps them out of PATH.
find_postgres() {
    local directory
    for directory in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/lib/postgresql*/bin | sort -rV) \
        "$(dirname "$(command -v initdb 2>/dev/null || echo /nowhere/initdb)")"; do
        if [ -x "$directory/initdb" ] && [ -x "$directory/pg_ctl" ] && [ -x "$directory/pg_dump" ]; then
            printf '%s\n' "$directory"
            return 0
        fi
    done
    return 1
}

CREATECLUSTER=/etc/postgresql-common/createcluster.conf
CREATECLUSTER_COPY=

# install_postgres: a server and its client, without the cluster that Debian's package would create and start.
# Whoever calls it has `restore_createcluster` in an EXIT trap.
install_postgres() {
    if ! have apt-get; then
        die "there is no PostgreSQL server here. Install one with its client programs (Fedora: dnf install postgresql-server; \
Arch: pacman -S postgresql; macOS: brew install postgresql), then run this again."
    fi
    [ -e "$CREATECLUSTER" ] || apt_install postgresql-common
    CREATECLUSTER_COPY=$(mktemp)
    cp "$CREATECLUSTER" "$CREATECLUSTER_COPY"
    # The last word wins in this file.
    printf '\ncreate_main_cluster = false\n' | as_root tee -a "$CREATECLUSTER" >/dev/null
    apt_install postgresql
    restore_createcluster
    find_postgres >/dev/null || die "apt-get installed postgresql, but there is no initdb in /usr/lib/postgresql/*/bin"
}

restore_createcluster() {
    [ -n "$CREATECLUSTER_COPY" ] || return 0
    # Through the file itself: its owner and mode stay.
    as_root tee "$CREATECLUSTER" <"$CREATECLUSTER_COPY" >/dev/null
    rm -f "$CREATECLUSTER_COPY"
    CREATECLUSTER_COPY=
}

# need_rust: cargo in PATH, and a linker for it.
need_rust() {
    have cargo || PATH="$HOME/.cargo/bin:$PATH"
    have cargo || die "there is no cargo: install Rust from https://rustup.rs, then run this again"
    have cc || apt_install gcc libc6-dev
}
