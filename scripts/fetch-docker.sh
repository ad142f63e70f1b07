#!/usr/bin/env bash
# Unpacks Debian's Docker engine, its command line and Compose, with what they need, without root:
#   scripts/fetch-docker.sh                              into target/docker
# What is in place stays as it is; remove target/docker to have it fetched again.
set -euo pipefail

# shellcheck source=scripts/debian.sh
source "$(dirname "$(readlink -f "$0")")/debian.sh"

say() { printf 'fetch-docker: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Programs that start themselves anew cannot be started through a loader of ours, so that the engine is that of a suite
# whose libc no machine is older than.
engine=(docker.io containerd runc iptables libdevmapper1.02.1 libseccomp2 libsystemd0 libnftnl11 libmnl0 libxtables12
    libip4tc2 libip6tc2 libnetfilter-conntrack3 libnfnetlink0)

fetch() { # suite package…
    local suite=$1 dir=$into/.fetch-$1
    shift
    say "reading the package list of $suite"
    configure_apt "$dir" "$suite"
    update_from_first_archive_serving "$dir" "$suite"
    say "downloading $# packages"
    unpack "$dir" "$@"
}

into=$(dirname "$(readlink -f "$0")")/../target/docker
[[ -x $into/tree/bin/dockerd ]] && exit 0
need_debian "elsewhere start a Docker engine"
mkdir -p "$into"
into=$(cd "$into" && pwd)
lock "$into/.lock"
[[ -x $into/tree/bin/dockerd ]] && exit 0

fetch bookworm "${engine[@]}"
fetch trixie docker-compose
root=$into/.fetch-bookworm/root
rm -rf "$into/draft"
mkdir -p "$into/draft/bin" "$into/draft/lib"
for program in usr/sbin/{dockerd,runc,docker-proxy} usr/bin/{docker,containerd,containerd-shim-runc-v2}; do
    cp -L "$root/$program" "$into/draft/bin/"
done
for name in iptables ip6tables; do cp "$root/usr/sbin/xtables-nft-multi" "$into/draft/bin/$name"; done
find "$root" -name '*.so.*' -exec cp -L {} "$into/draft/lib/" ';'
cp -r "$root/usr/lib/$(uname -m)-linux-gnu/xtables" "$into/draft/lib/"
find "$into/.fetch-trixie/root" -type f -name docker-compose -perm -u+x -exec cp {} "$into/draft/bin/" ';'
mv -T "$into/draft" "$into/tree"
rm -rf "$into"/.fetch-*
say "in $into/tree"
