#!/bin/bash
# Runs tests on newer versions of RabbitMQ: scripts/matrix-rabbitmq.sh SUITE... -- FILTER...
#
# SUITE is one of Debian's (trixie: RabbitMQ 4.0; sid: 4.3 and later), and is put once into target/rabbitmq/SUITE. Each FILTER is the
# beginning of test names, and must name a test at least. Ends with a table, and with status 1 if anything failed. The tests' output is in
# target/rabbitmq/SUITE.log. Needs root and debootstrap (scripts/install.sh matrix).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/matrix-table.sh
cache=${CARGO_TARGET_DIR:-$PWD/target}/rabbitmq

suites=()
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    suites+=("$1")
    shift
done
shift || true
if [ "${#suites[@]}" = 0 ] || [ "$#" = 0 ]; then
    sed -n '2,6s/^# \?//p' "$0" >&2
    exit 2
fi
if [ "$(id -u)" != 0 ]; then
    echo "not root: RabbitMQ of another Debian runs in a chroot, which needs root" >&2
    exit 1
fi

names=$(tests_of "$@")
mapfile -t tests <<<"$names"

# Leaves suite $1 with a RabbitMQ in $cache/$1.
fetch() {
    local folder=$cache/$1 new
    [ ! -e "$folder" ] || return 0
    echo "fetching RabbitMQ of Debian $1"
    mkdir -p "$cache"
    new=$(mktemp -d "$cache/new.XXXXXX")
    chmod 755 "$new"
    debootstrap --variant=minbase --include=rabbitmq-server "$1" "$new" http://deb.debian.org/debian >"$cache/$1.debootstrap.log" 2>&1 || {
        tail -n 20 "$cache/$1.debootstrap.log" >&2
        exit 1
    }
    echo '127.0.0.1 localhost' >"$new/etc/hosts"
    mv "$new" "$folder"
}

for suite in "${suites[@]}"; do
    fetch "$suite"
done

for suite in "${suites[@]}"; do
    version=$(basename "$cache/$suite"/usr/lib/rabbitmq/lib/rabbitmq_server-*)
    export WALPOST_RABBITMQ_ROOT=$cache/$suite
    matrix_run RabbitMQ "${version#rabbitmq_server-}" "$cache/$suite.log" "${tests[@]}"
done
matrix_end RabbitMQ
