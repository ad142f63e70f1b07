"""values.yaml, values.schema.json, the templates and README.md speak of the same values."""

import json
import re
import subprocess
import sys
import unittest

import yaml

from chart import CHART, HELMS, ROOT, template

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = {path: path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file()}
#: What Helm or a parent chart brings.
NOT_OURS = {"global", "enabled"}


def schema_of(path):
    """The schema of a value."""
    found = SCHEMA
    for part in path.split("."):
        found = found["properties"][part]
    return found


def leaves(values, path=""):
    """Every value that is no object with parts of its own."""
    for key, value in values.items():
        own = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict) and "properties" in schema_of(own):
            yield from leaves(value, own)
        else:
            yield own


def used():
    """Every value that a template speaks of."""
    return {match for text in TEMPLATES.values() for match in re.findall(r"\.Values\.([A-Za-z0-9.]+)", text)}


class Values(unittest.TestCase):
    """Each is there three times."""

    def test_every_value_is_used_by_a_template(self):
        known = used()
        # Handed over as a whole to a template that takes it apart.
        parts = {f"{image}.{part}" for image in ("image", "binary.image")
                 for part in ("registry", "repository", "tag", "digest") if image in known}
        image = next(text for path, text in TEMPLATES.items() if path.name == "_helpers.tpl")
        self.assertTrue(all(f".image.{part}" in image for part in ("registry", "repository", "tag", "digest")))
        # `$auth := .Values.auth`
        parts |= {f"auth.{part}" for part in re.findall(r"\$auth\.([A-Za-z]+)", image)}
        unused = [leaf for leaf in leaves(VALUES) if leaf not in known | parts]
        self.assertEqual(unused, [])

    def test_every_value_that_a_template_uses_is_in_the_schema_and_has_a_default(self):
        for path in used():
            with self.subTest(path):
                schema_of(path)
                found = VALUES
                for part in path.split("."):
                    found = found[part]

    def test_the_schema_knows_no_other_value(self):
        def walk(schema, values, path):
            for key, below in schema.get("properties", {}).items():
                if path == "" and key in NOT_OURS:
                    continue
                self.assertIn(key, values, f"{path}.{key}")
                if "properties" in below:
                    self.assertIs(below["additionalProperties"], False, f"{path}.{key}")
                    walk(below, values[key], f"{path}.{key}")
        walk(SCHEMA, VALUES, "")

    def test_a_wrong_key_is_named(self):
        paths = [""] + sorted({leaf.rpartition(".")[0] for leaf in leaves(VALUES)} - {""})
        self.assertGreater(len(paths), 20)
        for path in paths:
            with self.subTest(path):
                values = {"misspelt": 1}
                for part in reversed(path.split(".") if path else []):
                    values = {part: values}
                code, _, complaint = template(values)
                self.assertNotEqual(code, 0)
                self.assertIn("misspelt", complaint)
        for program in HELMS:
            code, _, complaint = template({"replica": 3}, helm=program)
            self.assertNotEqual(code, 0)
            self.assertIn("replica", complaint)

    def test_a_wrong_value_is_named(self):
        for values, key in [({"shards": 0}, "shards"), ({"shards": "three"}, "shards"), ({"mode": "sentinel"}, "mode"),
                            ({"handoverTimeout": "10 seconds"}, "handoverTimeout"), ({"resources": {"limits": {"memory": "lots"}}}, "resources.limits.memory"),
                            ({"terminationGracePeriodSeconds": 5}, "terminationGracePeriodSeconds"),
                            ({"tls": {"enabled": True}}, "tls.existingSecret")]:
            with self.subTest(key):
                code, _, complaint = template(values)
                self.assertNotEqual(code, 0)
                self.assertIn(key, complaint)

    def test_every_value_is_described(self):
        done = subprocess.run([sys.executable, str(ROOT / "scripts/chart-readme.py"), "--check"],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_parent_chart_may_pass_what_it_shares(self):
        code, _, complaint = template({"global": {"imageRegistry": "x"}, "enabled": True})
        self.assertEqual(code, 0, complaint)
