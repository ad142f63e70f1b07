#!/usr/bin/env bash
# A cluster on this machine, from nothing to keys and back to nothing; and another one whose pods are all restarted while
# clients write:
#   scripts/demo.sh [VALKEEPER [VALKEY_BIN [ROLLING_RESTART]]]
# The program, the folder of valkey-server and valkey-cli, and the testbed's example of that name may also be given as the
# environment variables of these names. Fails when anything it shows does not hold.
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "$0")")")
valkeeper=${1:-${VALKEEPER:-$root/target/$(uname -m)-unknown-linux-gnu/release/valkeeper}}
bin=${2:-${VALKEY_BIN:-$root/target/valkey/9.1/bin}}
rolling=${3:-${ROLLING_RESTART:-$(dirname "$valkeeper")/examples/rolling_restart}}
keys=600 patience=60

bold='' plain=''
if [[ -t 1 ]]; then bold=$'\e[1m' plain=$'\e[0m'; fi
heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { printf '$ %s\n' "$*"; "$@"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

[[ -x $valkeeper ]] || die "there is no program $valkeeper: run \`make build\`"
[[ -x $bin/valkey-server && -x $bin/valkey-cli ]] || die "there is no Valkey in $bin: run \`make valkey\`"
[[ -x $rolling ]] || die "there is no program $rolling: run \`make demo\`"

work=$(mktemp -d)
local_pid=
finish() {
    # Asked first, so that it can clear up; its servers end with it in any case.
    if [[ $local_pid ]] && kill "$local_pid" 2>/dev/null; then wait "$local_pid" || true; fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

servers() { cat "/proc/$local_pid/task/$local_pid/children"; }
answer() { grep -oP "$1" "$work/out" | head -n1; }

heading "1. Six servers on loopback addresses become a cluster: three shards of two"
printf '$ %s\n' "$valkeeper local --shards 3 --replicas 1 --server $bin/valkey-server &"
TMPDIR=$work "$valkeeper" local --shards 3 --replicas 1 --server "$bin/valkey-server" \
    >"$work/out" &
local_pid=$!
for ((waited = 0; ; waited++)); do
    grep -q 'Ctrl-C stops it' "$work/out" && break
    kill -0 "$local_pid" 2>/dev/null || die "valkeeper local has ended; see above"
    ((waited < patience * 10)) || die "no cluster within $patience s"
    sleep 0.1
done
cat "$work/out"
pids=$(servers)
node=$(answer '(?<=-h )\S+')
dns=$(answer '(?<=--dns-server )\S+')
cli() { "$bin/valkey-cli" -c -h "$node"; }

heading "2. Anybody who can ask its DNS finds it"
show "$valkeeper" status --service valkey.local. --dns-server "$dns" --shards 3 --replicas 1

heading "3. $keys keys go in, each to the node that has its slot, and come out again"
echo "\$ valkey-cli -c -h $node    # SET demo:N value-N, then GET demo:N"
written=$(seq "$keys" | sed 's/.*/SET demo:& value-&/' | cli | grep -cx OK || true)
seq "$keys" | sed 's/.*/GET demo:&/' | cli | grep '^value-' >"$work/read" || true
matching=$(seq -f 'value-%g' "$keys" |
    diff --unchanged-line-format=x --old-line-format= --new-line-format= - "$work/read" | wc -c || true)
rm "$work/read"
echo "$written written, $matching read back"
[[ $written -eq $keys && $matching -eq $keys ]] || die "not all of the $keys keys are there"

heading "4. They are spread over the shards, and each is on a replica too (see KEYS)"
spread() { "$valkeeper" status --service valkey.local. --dns-server "$dns" -o json |
    sed -nE 's/^ *"keys": ([0-9]+),?/\1/p' | awk '{ sum += $1; if ($1 > 0) some++ } END { print sum, some }'; }
for ((waited = 0; ; waited++)); do # a replica may be a moment behind
    [[ $(spread) == "$((2 * keys)) 6" ]] && break
    ((waited < 100)) || die "the keys are not on all six nodes: $(spread)"
    sleep 0.1
done
show "$valkeeper" status --service valkey.local. --dns-server "$dns"

heading "5. Ctrl-C, and nothing is left"
kill -INT "$local_pid"
wait "$local_pid" || die "valkeeper local ended with $?"
local_pid=
for pid in $pids; do
    if kill -0 "$pid" 2>/dev/null; then die "server $pid still runs"; fi
done
[[ -z $(find "$work" -mindepth 1 ! -name out) ]] || die "files are left: $(ls "$work")"
echo "$(wc -w <<<"$pids") servers have ended, their files are gone."

heading "6. Every pod of another cluster is restarted, one by one, and its clients do not notice"
"$rolling" "$valkeeper" "$bin" || die "writes were lost or refused, or a pod did not come back; see above"
