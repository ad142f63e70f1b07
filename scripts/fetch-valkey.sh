#!/usr/bin/env bash
# Unpacks Debian's valkey-server and valkey-cli with the libraries they link, without root:
#   scripts/fetch-valkey.sh [--into DIR] [VERSION…]      default: target/valkey, 8.0 8.1 9.1
# What is in place stays as it is; remove DIR/VERSION to have it fetched again.
set -euo pipefail

# shellcheck source=scripts/debian.sh
source "$(dirname "$(readlink -f "$0")")/debian.sh"

say() { printf 'fetch-valkey: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

suites_of() { # the last one is where valkey-tools comes from
    case $1 in
        8.0) echo bookworm bookworm-backports ;;
        8.1) echo trixie ;;
        9.1) echo forky ;;
        *) die "no version $1: there are 8.0, 8.1 and 9.1" ;;
    esac
}

# valkey-tools and the libraries below it. Everything else it depends on (users, services) serves an
# installed system and is left out.
packages() { # apt.conf
    local known=valkey-tools new=valkey-tools
    while [[ $new ]]; do
        # shellcheck disable=SC2086 # a list of package names
        new=$(apt-cache -c "$1" depends $new |
            awk '/^ *\|?(Pre)?Depends: (lib|zlib)/ { print $2 }' | sort -u | grep -vxF "$known" || true)
        known=$(printf '%s\n%s' "$known" "$new" | sed '/^$/d')
    done
    echo "$known"
}

wrapper() { # program; argv[0] tells the binary that it is the server and not valkey-check-rdb
    cat <<SH
#!/bin/sh
here=\$(readlink -f "\$0") || exit
here=\${here%/bin/*}
exec "\$here/lib/ld.so" --argv0 "\$here/bin/$1" --library-path "\$here/lib" "\$here/libexec/$1" "\$@"
SH
}

# Copies the two programs and what the loader says they need out of a root of unpacked packages.
assemble() { # root tree
    local root=$1 tree=$2 loader path program
    mkdir -p "$tree/bin" "$tree/lib" "$tree/libexec"
    loader=$(find "$root" -type f -name 'ld-linux*.so*' | head -n1)
    path=$(find "$root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
    cp "$loader" "$tree/lib/ld.so"
    # The package that owns valkey-server holds only a link to this binary.
    cp "$root/usr/bin/valkey-check-rdb" "$tree/libexec/valkey-server"
    cp "$root/usr/bin/valkey-cli" "$tree/libexec/valkey-cli"
    for program in valkey-server valkey-cli; do
        "$loader" --inhibit-cache --library-path "$path" --list "$tree/libexec/$program" |
            awk '$2 == "=>" { print $3 }' |
            while read -r library; do
                [[ $library == "$root"/* ]] || die "$program needs a library outside its packages: $library"
                cp -L "$library" "$tree/lib/"
            done
        wrapper "$program" >"$tree/bin/$program"
        chmod +x "$tree/bin/$program"
        "$tree/bin/$program" --version >&2
    done
}

fetch() { # version
    local version=$1 suites dir=$into/.fetch-$1
    read -ra suites <<<"$(suites_of "$version")"
    lock "$into/.lock-$version"
    [[ -x $into/$version/bin/valkey-server ]] && return
    say "$version: reading the package lists of ${suites[*]}"
    configure_apt "$dir" "${suites[-1]}"
    update_from_first_archive_serving "$dir" "${suites[@]}"
    rm -rf "$dir/tree"
    local list
    list=$(packages "$dir/apt.conf")
    say "$version: downloading $(wc -w <<<"$list") packages"
    # shellcheck disable=SC2086 # a list of package names
    unpack "$dir" $list
    assemble "$dir/root" "$dir/tree"
    mv -T "$dir/tree" "$into/$version"
    rm -rf "$dir"
    say "$version: in $into/$version"
}

into=$(dirname "$(readlink -f "$0")")/../target/valkey
if [[ ${1-} == --into ]]; then
    into=${2:?--into needs a folder}
    shift 2
fi
[[ $# -gt 0 ]] || set -- 8.0 8.1 9.1

missing=()
for version; do
    suites_of "$version" >/dev/null
    [[ -x $into/$version/bin/valkey-server ]] || missing+=("$version")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

need_debian "elsewhere put a valkey-server on PATH"
mkdir -p "$into"
into=$(cd "$into" && pwd)

jobs=()
# An interrupt at the terminal does not reach background jobs by itself.
trap 'kill "${jobs[@]}" 2>/dev/null || true' EXIT
for version in "${missing[@]}"; do
    fetch "$version" &
    jobs+=($!)
done
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
trap - EXIT
exit "$failed"
