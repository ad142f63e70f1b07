#!/usr/bin/env bash
# Runs a command with a Docker engine: the machine's own where one runs, else one that is gone when the command ends:
#   scripts/with-docker.sh COMMAND…
# Takes root. The engine, its containers, networks, mounts and packet filter are in namespaces of their own, which the
# kernel takes away with the first process; the command is in them, too, so that it reaches containers and nothing else.
set -euo pipefail

say() { printf 'with-docker: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

here=$(dirname "$(readlink -f "$0")")
tree=$(readlink -m "$here/../target/docker/tree")

start() {
    local i
    ip link set lo up
    state=$(mktemp -d "$(readlink -m "$tree/..")/engine.XXXXXX")
    export LD_LIBRARY_PATH=$tree/lib XTABLES_LIBDIR=$tree/lib/xtables DOCKER_HOST=unix://$state/docker.sock
    # containerd takes no longer path for its socket.
    mkdir -p /run/valkeeper-docker
    mount -t tmpfs none /run/valkeeper-docker
    dockerd --data-root "$state/data" --exec-root /run/valkeeper-docker --pidfile "$state/pid" --host "$DOCKER_HOST" \
        --bridge none --cgroup-parent "valkeeper-${state##*.}" >"$state/log" 2>&1 &
    for ((i = 0; i < 300; i++)); do
        docker version >/dev/null 2>&1 && return
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    tail -n 30 "$state/log" >&2
    die "the engine does not start"
}

stop() {
    local pids
    pids=$(docker ps --quiet --all 2>/dev/null || true)
    # shellcheck disable=SC2086 # a list of ids
    [[ $pids ]] && docker rm --force --volumes $pids >/dev/null 2>&1
    kill "$(cat "$state/pid" 2>/dev/null)" 2>/dev/null || true
    wait
    find /sys/fs/cgroup -depth -type d -path "*/valkeeper-${state##*.}*" -exec rmdir {} ';' 2>/dev/null
    rm -rf "$state"
}

if [[ ${1-} == --inside ]]; then
    shift
    state=
    trap 'stop || true' EXIT
    start
    # Nothing of the engine's libraries is for the command; docker itself finds them by its wrapper.
    status=0
    "$@" || status=$?
    exit "$status"
fi

[[ $# -gt 0 ]] || die "usage: with-docker.sh COMMAND…"
command -v docker >/dev/null && docker version >/dev/null 2>&1 && exec "$@"
[[ $(id -u) == 0 ]] || die "no Docker engine runs, and to start one takes root"
"$here/fetch-docker.sh"
export PATH=$tree/bin:$PATH
exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$@"
