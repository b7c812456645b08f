#!/bin/bash
# Runs a command with a temporary folder of its own, and does not end before everything that was started in it has ended too,
# whatever became of the command. The exit status is the command's; 1 if something stayed behind.
set -euo pipefail

TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/walpost.XXXXXX")
# PostgreSQL runs as a user of its own where we are root.
chmod 755 "$TMPDIR"
export TMPDIR

finish() {
    local status=$?
    trap '' INT TERM
    # The fixtures' watchdogs empty it within a second.
    for _ in $(seq 300); do
        if rmdir "$TMPDIR" 2>/dev/null; then
            exit "$status"
        fi
        sleep 0.1
    done
    echo "left behind in $TMPDIR:" >&2
    ls -A "$TMPDIR" >&2
    exit 1
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$@"
