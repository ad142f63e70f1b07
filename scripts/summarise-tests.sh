#!/usr/bin/env bash
# Runs a command that runs cargo's tests, passes its output on as it comes, and closes with one line over all test
# binaries and doctests:
#   scripts/summarise-tests.sh cargo test --workspace        … 120 passed, 0 failed
# Ends as the command did. What never ran is not called passed: where the command fails outside of a test, be it that
# the code does not compile or that a test binary is killed, there is no closing line; no test at all is a failure too.
set -uo pipefail

[[ $# -gt 0 ]] || {
    echo "usage: ${0##*/} COMMAND…" >&2
    exit 64
}
output=$(mktemp) || exit
trap 'rm -f "$output"' EXIT

"$@" | tee "$output"
# Of both, as the next command overwrites them; tee fails where the disk is full, and then the sums are wrong.
status=("${PIPESTATUS[@]}")
[[ ${status[1]} -eq 0 ]] || {
    echo "the tests' output could not be kept in $output" >&2
    exit 74
}

read -r passed failed ignored < <(awk '
    /^test result: (ok|FAILED)\. [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored;/ { p += $4; f += $6; i += $8 }
    END { print p + 0, f + 0, i + 0 }' "$output")

if [[ ${status[0]} -ne 0 && $failed -eq 0 ]]; then
    echo "not every test ran: \`$*\` failed outside of a test, with exit code ${status[0]} ($passed passed before)" >&2
    exit "${status[0]}"
fi
if [[ $((passed + failed)) -eq 0 ]]; then
    echo "no test ran" >&2
    exit 1
fi
skipped=
[[ $ignored -eq 0 ]] || skipped=", $ignored skipped"
echo
echo "$passed passed, $failed failed$skipped"
# A failed test is a failure, whatever the command made of it.
[[ $failed -eq 0 ]] || exit "$((status[0] ? status[0] : 1))"
