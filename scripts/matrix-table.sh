# shellcheck shell=bash
# What the matrices of versions share: which tests are meant, running them, a table of what came out. To be sourced by a script that
# stands in the repository's folder.

# Prints the tests whose names begin with one of the arguments, each of which must find one. By their whole names: cargo looks for a
# filter anywhere in them, and passes if there is none.
tests_of() {
    local listed filter
    listed=$(cargo test --quiet --workspace --test it -- --list 2>/dev/null | sed -n 's/: test$//p')
    for filter in "$@"; do
        grep "^$filter" <<<"$listed" || { echo "no test begins with $filter" >&2; return 1; }
    done | sort -u
}

matrix_lines=''
matrix_failed=0

# matrix_run SERVER VERSION LOG TEST...: runs the tests, their output into LOG, and keeps a line for the table. No test may be missing.
matrix_run() {
    local server=$1 version=$2 log=$3 result=ok started=$SECONDS counted
    shift 3
    echo "$server $version: $# tests"
    scripts/sandboxed.sh cargo test --quiet --workspace --test it -- --test-threads "${TEST_THREADS:-2}" --exact "$@" \
        >"$log" 2>&1 </dev/null || result=FAILED
    counted=$(sed -n 's/^test result: [^.]*\. \([0-9]* passed; [0-9]* failed\).*/\1/p' "$log" | tail -n 1)
    [ "$counted" = "$# passed; 0 failed" ] || result=FAILED
    if [ "$result" != ok ]; then
        matrix_failed=1
        tail -n 60 "$log"
    fi
    matrix_lines+=$(printf '%-12s %-6s  %s, %d s' "$version" "$result" "${counted:-not run}" $((SECONDS - started)))$'\n'
}

# Prints the table under the server's name, and ends the script: with status 1 if anything failed.
matrix_end() {
    printf '\n%-12s result\n%s' "$1" "$matrix_lines"
    exit "$matrix_failed"
}
