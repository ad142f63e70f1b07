#!/usr/bin/env bash
# Builds all tests and runs them, three test binaries at a time, or AT_ONCE, as most of them wait for servers most of the time:
#   scripts/run-tests.sh cargo --workspace --all-features
# What a binary says is shown when it has ended, in one piece. Ends with 1 where any has failed.
set -euo pipefail

readonly AT_ONCE=${AT_ONCE:-3}

[[ $# -gt 0 ]] || {
    echo "usage: ${0##*/} CARGO [OPTION…]" >&2
    exit 64
}
cargo=$1
shift
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT

run() {
    local binary=$1 said=$notes/${1##*/} status=0
    "$binary" >"$said" 2>&1 </dev/null || status=$?
    {
        flock 9
        echo "     Running $binary"
        cat "$said"
        # A failed test has been told; a binary that never came to an end has not.
        [[ $status -eq 0 ]] || echo "error: $binary ended with exit code $status"
    } 9<"$notes"
    return "$status"
}

"$cargo" test "$@" --no-run 2>&1 | tee "$notes/built"
# Those that take minutes first, so that none is left alone at the end.
sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$notes/built" |
    awk '{ print (/\/(crash|keep|rebalance|scale|scenarios|tls)-/ ? 1 : 2), $0 }' | sort | cut -d ' ' -f 2 >"$notes/binaries"
[[ -s $notes/binaries ]] || {
    echo "cargo named no test binary" >&2
    exit 70
}

failed=0 running=0
while read -r binary; do
    if [[ $running -eq $AT_ONCE ]]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    run "$binary" &
    running=$((running + 1))
done <"$notes/binaries"
for ((; running > 0; running--)); do
    wait -n || failed=1
done
"$cargo" test "$@" --doc || failed=1
exit "$failed"
