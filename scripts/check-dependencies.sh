#!/usr/bin/env bash
# Checks licences, origins, doubles and advisories of what is linked, by deny.toml. Takes cargo-deny from PATH, else
# installs it into a folder:
#   scripts/check-dependencies.sh target/tools
# Where the database of advisories cannot be fetched it says so, and the rest counts.
set -euo pipefail

readonly VERSION=0.20.2

[[ $# -eq 1 ]] || {
    echo "usage: ${0##*/} FOLDER" >&2
    exit 64
}
deny=$(command -v cargo-deny || echo "$1/bin/cargo-deny")
# Built in a hurry: it runs for seconds.
[[ -x $deny ]] || CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --quiet --locked --root "$1" --version "$VERSION" cargo-deny

"$deny" --all-features check bans licenses sources
if "$deny" --all-features fetch db 2>/dev/null; then
    "$deny" --all-features check --disable-fetch advisories
else
    echo "the database of advisories is out of reach: advisories are not checked" >&2
fi
