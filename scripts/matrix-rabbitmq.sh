#!/bin/bash
# Runs tests on newer versions of RabbitMQ: scripts/matrix-rabbitmq.sh SUITE... -- FILTER...
#
# SUITE is one of Debian's (trixie: RabbitMQ 4.0; sid: 4.3 and later), and is put once into target/rabbitmq/SUITE. Each FILTER is the
# beginning of test names. Ends with a table, and with status 1 if anything failed. The tests' output is in
# target/rabbitmq/SUITE.log. Needs root and debootstrap (scripts/install.sh matrix).
set -euo pipefail
cd "$(dirname "$0")/.."
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

failed=0
table=''
for suite in "${suites[@]}"; do
    version=$(basename "$cache/$suite"/usr/lib/rabbitmq/lib/rabbitmq_server-*)
    version=${version#rabbitmq_server-}
    log=$cache/$suite.log
    echo "RabbitMQ $version"
    result=ok
    WALPOST_RABBITMQ_ROOT=$cache/$suite scripts/sandboxed.sh \
        cargo test --quiet --workspace --test it -- --test-threads "${TEST_THREADS:-2}" "$@" >"$log" 2>&1 </dev/null || result=FAILED
    counted=$(sed -n 's/^test result: [^.]*\. \([0-9]* passed; [0-9]* failed\).*/\1/p' "$log" | tail -1)
    case $counted in '' | '0 passed'*) result=FAILED ;; esac
    if [ "$result" != ok ]; then
        failed=1
        tail -n 60 "$log"
    fi
    table+=$(printf '%-12s %-6s  %s' "$version" "$result" "${counted:-not run}")$'\n'
done
printf '\nRabbitMQ     result\n%s' "$table"
exit "$failed"
