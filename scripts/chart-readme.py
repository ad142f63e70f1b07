#!/usr/bin/env python3
"""Writes the table of values in the chart's README.md, from the comments in values.yaml; with --check, only looks.

A value is described by the comment above it that begins with `# --`; what it is made of is then not listed."""

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[1] / "charts/valkey-cluster"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"


def default(values, path):
    for part in path.split("."):
        values = values[part]
    return json.dumps(values, ensure_ascii=False)


def described(text):
    """Each value with a description, in the order of the file."""
    path, comment = [], None
    for line in text.splitlines():
        said = re.match(r" *# (-- )?(.*)", line)
        key = re.match(r"( *)([A-Za-z][A-Za-z0-9]*):(.*)", line)
        if said and said[1]:
            comment = said[2]
        elif said and comment is not None:
            comment += " " + said[2]
        elif key:
            path = path[:len(key[1]) // 2] + [key[2]]
            if comment is not None:
                yield ".".join(path), comment
            comment = None


def leaves(values, known, path=""):
    for key, value in values.items():
        own = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict) and value and own not in known:
            yield from leaves(value, known, own)
        else:
            yield own


def main():
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    rows = dict(described(text))
    whole = {path for path in rows if not any(other.startswith(path + ".") for other in rows)}
    bare = [path for path in leaves(values, whole) if path not in rows]
    if bare:
        sys.exit(f"values.yaml does not describe {', '.join(bare)}: begin a comment above it with `# --`")
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for path, comment in rows.items():
        shown = default(values, path) if path in whole else ""
        lines.append(f"| `{path}` | {f'`{shown}`' if shown else ''} | {comment.replace('|', chr(92) + '|')} |")
    readme = CHART / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    new = before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after
    if new == readme.read_text():
        return
    if "--check" in sys.argv:
        sys.exit("README.md of the chart is behind values.yaml: run `make docs`")
    readme.write_text(new)


main()
