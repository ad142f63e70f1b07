"""values.yaml, values.schema.json, the templates and README.md speak of the same values."""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

import kubernetes_validate
import yaml

from chart import CASES, CHART, HELMS, ROOT, each_of, merged, template, whole

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = {path: path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file()}
#: What Helm or a parent chart brings.
NOT_OURS = {"global", "enabled"}
#: Values that no case of every test may have: pods would not be restricted any more, or have other names.
BY_ITSELF = {
    "domain": {"clusterDomain": "example.org"},
    "unrestricted": {
        "podSecurityContext": {"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}},
        "containerSecurityContext": {"allowPrivilegeEscalation": True, "readOnlyRootFilesystem": False,
                                     "capabilities": {"drop": []}},
    },
}


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


def smallest(values, path=()):
    """The way to every value that has none below it, down to those of Kubernetes itself."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from smallest(value, (*path, key))
        else:
            yield (*path, key)


def at(values, path):
    """The value there."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def put(values, path, value):
    """The values with another one there."""
    key, *rest = path
    below = values.get(key)
    return {**values, key: put(below if isinstance(below, dict) else {}, rest, value) if rest else value}


@functools.cache
def cases():
    """The values of every case, those of the file that it names among them."""
    return {name: whole(values) for name, values in {**CASES, **BY_ITSELF}.items()}


@functools.cache
def manifests(name):
    """What a case gives, without comments."""
    code, text, complaint = template(cases()[name])
    assert code == 0, complaint
    return uncommented(text)


def uncommented(text):
    return re.sub(r"(?m)^ *#.*\n", "", text)


def has_an_effect(path):
    """Whether a case has another value there, and gives something else, or is refused, with the default in its place."""
    default = at(VALUES, path)
    for name, values in cases().items():
        # A password that is made is another one each time.
        made = at(values, ("auth", "autoGenerate")) and path != ("auth", "autoGenerate")
        if made or at(merged(VALUES, values), path) == default:
            continue
        code, text, complaint = template(put(values, path, default))
        if path[-1] in complaint if code else uncommented(text) != manifests(name):
            return True
    return False


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
        image = next(text for path, text in TEMPLATES.items() if path.name == "_pods.tpl")
        self.assertTrue(all(f".image.{part}" in image for part in ("registry", "repository", "tag", "digest")))
        # `$auth := .Values.auth`
        everything = "".join(TEMPLATES.values())
        parts |= {f"auth.{part}" for part in re.findall(r"\$auth\.([A-Za-z]+)", everything)}
        unused = [leaf for leaf in leaves(VALUES) if leaf not in known | parts]
        self.assertEqual(unused, [])

    def test_every_value_has_an_effect_by_itself(self):
        paths = list(smallest(VALUES))
        self.assertGreater(len(paths), 100)
        idle = [".".join(path) for path, works in zip(paths, each_of(paths, has_an_effect)) if not works]
        self.assertEqual(idle, [])

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
                            ({"tls": {"enabled": True}}, "tls.existingSecret"), ({"persistence": {"volumeName": "config"}}, "persistence.volumeName"),
                            ({"fullnameOverride": "x" * 53}, "fullnameOverride")]:
            with self.subTest(key):
                code, _, complaint = template(values)
                self.assertNotEqual(code, 0)
                self.assertIn(key, complaint)

    def test_a_wrong_key_of_kubernetes_own_is_named(self):
        for values, key in [
            ({"resources": {"limts": {}}}, "limts"), ({"resources": {"limits": {"memroy": "1Gi"}}}, "memroy"),
            ({"binary": {"resources": {"request": {}}}}, "request"), ({"imagePullSecrets": [{"nmae": "x"}]}, "nmae"),
            ({"imagePullSecrets": [{}]}, "name"), ({"updateStrategy": {"typ": "OnDelete"}}, "typ"),
            ({"updateStrategy": {"rollingUpdate": {"partion": 1}}}, "partion"), ({"podSecurityContext": {"runAsUsr": 1}}, "runAsUsr"),
            ({"containerSecurityContext": {"readOnlyRootFilesytem": True}}, "readOnlyRootFilesytem"),
            ({"networkPolicy": {"podSelector": {"matchLabel": {}}}}, "matchLabel"),
            ({"networkPolicy": {"namespaceSelector": {"matchExpressions": [{"key": "a", "operater": "In"}]}}}, "operater"),
            ({"persistence": {"selector": {"matchLabel": {}}}}, "matchLabel"), ({"affinity": {"podAffinty": {}}}, "podAffinty"),
            ({"tolerations": [{"kye": "a"}]}, "kye"), ({"topologySpreadConstraints": [{"maxskew": 1}]}, "maxskew"),
            ({"extraEnv": [{"nam": "A"}]}, "nam"), ({"extraVolumes": [{"name": "a", "emptydir": {}}]}, "emptydir"),
            ({"extraVolumeMounts": [{"path": "/a"}]}, "path"), ({"extraContainers": [{"img": "a"}]}, "img"),
            ({"metrics": {"serviceMonitor": {"relabelings": [{"sourceLabel": []}]}}}, "sourceLabel"),
        ]:
            with self.subTest(key):
                code, _, complaint = template(values)
                self.assertNotEqual(code, 0)
                self.assertIn(f"'{key}'", complaint.replace('"', "'"))

    def test_no_right_key_of_kubernetes_own_is_refused(self):
        folder = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
        newest = max(folder.iterdir(), key=lambda each: [int(part) for part in re.findall(r"\d+", each.name)])
        ours = {each["$comment"]: set(each["properties"]) for each in SCHEMA["definitions"].values() if "$comment" in each}
        self.assertGreater(len(ours), 10)
        for name, keys in ours.items():
            with self.subTest(name):
                self.assertEqual(set(json.loads((newest / f"{name}.json").read_text())["properties"]), keys)

    def test_a_grace_period_is_refused_where_the_program_refuses_it(self):
        def grace_and_delay(grace, delay, hook=True):
            preStop = {"delay": delay, "enabled": hook}
            return {"terminationGracePeriodSeconds": grace, "lifecycle": {"preStop": preStop}}
        for hook in (True, False):
            for delay in ("10s", "11500ms", "1m 30s", "1h"):
                code, _, complaint = template(grace_and_delay(15, delay, hook))
                self.assertNotEqual(code, 0)
                for word in ("terminationGracePeriodSeconds: 15 s", f"lifecycle.preStop.delay of {delay}"):
                    self.assertIn(word, complaint)
                least = int(re.search("([0-9]+) at least", complaint)[1])
                for grace in (least - 1, least):
                    # The hook has five seconds less than the pod.
                    fits = self.program_takes(grace - (5 if hook else 0), delay)
                    code, _, complaint = template(grace_and_delay(grace, delay, hook))
                    self.assertEqual((code == 0, fits), (grace == least, grace == least), f"{grace} s, {delay}, {hook}: {complaint}")

    def program_takes(self, grace, delay):
        """Whether `drain` would begin: it finds no server then."""
        args = ["drain", "--mode", "standalone", "--grace-period", f"{grace}s", "--delay", delay, "--port", "1"]
        done = subprocess.run([os.environ["VALKEEPER"], *args], capture_output=True, text=True, timeout=60, check=False,
                              env={"POD_IP": "127.0.0.1"})
        self.assertIn(done.returncode, (64, 69), done.stderr)
        return done.returncode == 69

    def test_every_value_is_described(self):
        done = subprocess.run([sys.executable, str(ROOT / "scripts/chart-readme.py"), "--check"],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_parent_chart_may_pass_what_it_shares(self):
        code, _, complaint = template({"global": {"imageRegistry": "x"}, "enabled": True})
        self.assertEqual(code, 0, complaint)
