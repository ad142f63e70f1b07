# Debian's packages, unpacked below a folder without root: sourced by the scripts that fetch something. They define `say`
# and `die`.
# shellcheck shell=bash

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

# Leaves the files of packages, and of nothing that they depend on, in $1/root.
unpack() { # dir package…
    local dir=$1 deb
    shift
    rm -rf "$dir/debs" "$dir/root"
    mkdir "$dir/debs" "$dir/root"
    (cd "$dir/debs" && apt-get -c "$dir/apt.conf" -qq download "$@") || die "the download of $* failed; run it again"
    for deb in "$dir"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/root"; done
}

# Holds what others have to wait for, until this shell ends.
lock() { # file
    exec 9>"$1"
    flock -n 9 || { say "waiting for another fetch"; flock -w 600 9 || die "the other fetch hangs"; }
}

need_debian() {
    local tool
    for tool in apt-get dpkg-deb flock; do
        command -v "$tool" >/dev/null || die "$tool is missing: this needs a Debian machine (no root)${1:+; $1}"
    done
}
