#!/usr/bin/env bash
# Unpacks Debian's valkey-server and valkey-cli with the libraries they link, without root:
#   scripts/fetch-valkey.sh [--into DIR] [VERSION…]      default: target/valkey, 8.0 8.1 9.1
# What is in place stays as it is; remove DIR/VERSION to have it fetched again.
set -euo pipefail

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

# The archives this machine's apt knows, Debian's own (by its path) first.
archives() {
    local known
    known=$(apt-get indextargets --format "\$(SITE) \$(RELEASE)" 'Created-By: Packages' 2>/dev/null || true)
    # apt names an archive only after an update, and a fresh container image has not seen one.
    [[ $known ]] || known=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
        sed -nE 's/^deb (\[[^]]*\] *)?//p; s/^URIs: *//p' || true)
    awk '$0 !~ /security/ && !seen[$1]++ { print ($1 ~ /\/debian\/?$/ ? 0 : 1), $1 }' <<<"$known" |
        sort -s -n -k1,1 | cut -d' ' -f2
}

# Leaves in $1 an apt configuration with a state of its own, so that neither root nor the machine's
# package lists are touched; proxies and credentials still come from the machine's configuration.
configure_apt() { # dir suite
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
    cat >"$1/apt.conf" <<CONF
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi;
#clear Acquire::IndexTargets::deb::Contents-deb;
#clear Acquire::Languages;
Acquire::Languages { "none"; };
APT::Default-Release "$2";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Dir::Etc::SourceList "$1/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$1";
Dir::State::Lists "$1/lists";
Dir::State::Status "/dev/null";
Dir::Cache "$1/cache";
CONF
}

update_from_first_archive_serving() { # dir suite…
    local dir=$1 archive suite keyring arch
    shift
    keyring=$(find /usr/share/keyrings -name 'debian-archive-keyring.[gp]*' | sort | head -n1)
    [[ $keyring ]] || die "no Debian archive keyring: apt-get install debian-archive-keyring"
    arch=$(dpkg --print-architecture)
    for archive in $(archives); do
        for suite; do
            printf 'deb [arch=%s signed-by=%s] %s %s main\n' "$arch" "$keyring" "$archive" "$suite"
        done >"$dir/sources.list"
        apt-get -c "$dir/apt.conf" -qq update >"$dir/update.log" 2>&1 && return
    done
    cat "$dir/update.log" 2>/dev/null >&2 || true
    die "no archive of this machine's apt serves $*: add a Debian mirror to /etc/apt/sources.list.d, or mend the network"
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
    exec 9>"$into/.lock-$version"
    flock -n 9 || { say "$version: waiting for another fetch"; flock -w 600 9 || die "$version: the other fetch hangs"; }
    [[ -x $into/$version/bin/valkey-server ]] && return
    say "$version: reading the package lists of ${suites[*]}"
    configure_apt "$dir" "${suites[-1]}"
    update_from_first_archive_serving "$dir" "${suites[@]}"
    rm -rf "$dir/debs" "$dir/root" "$dir/tree"
    mkdir "$dir/debs" "$dir/root"
    local list
    list=$(packages "$dir/apt.conf")
    say "$version: downloading $(wc -w <<<"$list") packages"
    # shellcheck disable=SC2086 # a list of package names
    (cd "$dir/debs" && apt-get -c "$dir/apt.conf" -qq download $list) ||
        die "$version: download failed; run it again"
    for deb in "$dir"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/root"; done
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

for tool in apt-get dpkg-deb flock; do
    command -v "$tool" >/dev/null ||
        die "$tool is missing: this needs a Debian machine (no root); elsewhere put a valkey-server on PATH"
done
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
