#!/bin/bash
# Runs shellcheck over every shell script of the repository, where shellcheck is to be had.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v shellcheck >/dev/null; then
    echo "no shellcheck here: shell scripts are not checked" >&2
    exit 0
fi
files=$(git ls-files | while read -r file; do
    case $(head -c 64 "$file" | head -n 1) in '#!/bin/sh' | '#!/bin/bash' | '# shellcheck shell='*) echo "$file" ;; esac
done 2>/dev/null)
# shellcheck disable=SC2086  # names of ours, without blanks
shellcheck $files
