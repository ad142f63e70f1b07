#!/usr/bin/env bash
# Writes the reference of the command line, as the program itself tells it, to standard output:
#   scripts/help-to-markdown.sh target/…/release/valkeeper > docs/cli.md
set -euo pipefail

binary=${1:?"usage: ${0##*/} PATH-OF-VALKEEPER"}

# Neither the terminal's width nor the caller's settings belong in the reference.
help() { env -i COLUMNS=100 "$binary" "$@" --help </dev/null 2>/dev/null | sed 's/[[:space:]]*$//'; }

commands() { help | sed -n '/^Commands:/,/^$/ s/^  \([a-z][a-z-]*\) .*/\1/p' | grep -vx help; }

# shellcheck disable=SC2016 # the backquotes are Markdown
section() { # title, then the subcommand
    printf '\n## `%s`\n\n```text\n' "$1"
    help "${@:2}"
    printf '```\n'
}

cat <<'MD'
# Command line

What `valkeeper --help` says, written down by `make docs`; do not edit it here.
MD
section valkeeper
for command in $(commands); do section "valkeeper $command" "$command"; done
