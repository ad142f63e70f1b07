"""Passwords, and what is looked up in the cluster."""

import base64
import hashlib
import json
import tempfile
import unittest

from chart import CASES, HELMS, case, containers, each_of, merged, of_kind, only, pods, render, template, whole
from fake_api import FakeApi

SECRET = "/api/v1/namespaces/cache/secrets/prod-valkey-cluster"
STATEFUL_SET = "/apis/apps/v1/namespaces/cache/statefulsets/prod-valkey-cluster"


def as_in_the_cluster(objects, values, program):
    """What the values give where these objects are there already, as Helm leaves them."""
    for each in objects.values():
        owner = {"meta.helm.sh/release-name": "prod", "meta.helm.sh/release-namespace": "cache"}
        each["metadata"]["annotations"] = {**each["metadata"].get("annotations", {}), **owner}
    with FakeApi(objects) as api, tempfile.TemporaryDirectory() as folder:
        args = ["--dry-run=server", "--disable-openapi-validation", "--kubeconfig", str(api.kubeconfig(folder))]
        return render(values, *args, helm=program)


class Auth(unittest.TestCase):
    """Where the password comes from, and where it never is."""

    def test_a_password_wants_one_source(self):
        for auth, words in [
            ({}, "auth.enabled needs a password"),
            ({"password": "a", "existingSecret": "b"}, "exclude each other"),
            ({"password": "a", "autoGenerate": True}, "exclude each other"),
        ]:
            for program in HELMS:
                code, _, complaint = template({"auth": {"enabled": True, **auth}}, helm=program)
                self.assertNotEqual(code, 0)
                self.assertIn(words, complaint)

    def test_without_auth_there_is_no_secret(self):
        self.assertEqual(of_kind(case("defaults"), "Secret"), [])
        self.assertEqual(of_kind(case("existing-secret"), "Secret"), [])

    def test_a_password_is_nowhere_but_in_the_secret(self):
        word = "MARKER-7f3a9c"
        given = {"auth": {"enabled": True, "password": word, "existingSecret": "", "autoGenerate": False}}
        for name, objects in zip(CASES, each_of(merged(whole(values), given) for values in CASES.values())):
            with self.subTest(name):
                self.is_kept(word, objects)
        made = [name for name in CASES if whole(CASES[name]).get("auth", {}).get("autoGenerate")]
        self.assertGreaterEqual(len(made), 2)
        for name in made:
            with self.subTest(name):
                word = base64.b64decode(only(case(name), "Secret")["data"]["password"]).decode()
                self.assertEqual(len(word), 32)
                self.is_kept(word, case(name))

    def is_kept(self, word, objects):
        """That the word is the password in the Secret, and nowhere else in any form."""
        secret = only(objects, "Secret")
        self.assertEqual(base64.b64decode(secret["data"]["password"]).decode(), word)
        bare = {key: value for key, value in secret.items() if key != "data"}
        rest = json.dumps([bare, *(each for each in objects if each is not secret)])
        encoded = base64.b64encode(word.encode()).decode()
        for form in (word, encoded, hashlib.sha256(word.encode()).hexdigest()):
            self.assertNotIn(form, rest)

    def test_no_container_gets_it_as_a_variable_or_an_argument(self):
        for name in CASES:
            for _, spec in pods(case(name)):
                for each in containers(spec):
                    for variable in each.get("env", []):
                        self.assertNotIn("secretKeyRef", variable.get("valueFrom", {}), name)
                        self.assertNotIn(variable["name"], ("VALKEY_PASSWORD", "VALKEYCLI_AUTH"))

    def test_the_key_of_an_existing_secret(self):
        spec = only(case("existing-secret"), "StatefulSet")["spec"]["template"]["spec"]
        volume = next(each for each in spec["volumes"] if each["name"] == "password")
        self.assertEqual(volume["secret"]["secretName"], "mine")
        self.assertEqual(volume["secret"]["items"], [{"key": "valkey.password", "path": "password"}])

    def test_a_password_is_made_once(self):
        values = {"auth": {"enabled": True, "autoGenerate": True}}
        for program in HELMS:
            made = [only(as_in_the_cluster({}, values, program), "Secret") for _ in range(2)]
            passwords = [base64.b64decode(each["data"]["password"]).decode() for each in made]
            for each, password in zip(made, passwords):
                self.assertRegex(password, "^[A-Za-z0-9]{32}$")
                annotations = each["metadata"]["annotations"]
                self.assertEqual(annotations["helm.sh/resource-policy"], "keep")
                self.assertEqual(annotations["valkey-cluster/auto-generated"], "true")
            self.assertNotEqual(*passwords)
            kept = only(as_in_the_cluster({SECRET: made[0]}, values, program), "Secret")
            self.assertEqual(kept["data"], made[0]["data"])

    def test_a_smaller_cluster_is_noticed_by_what_is_there(self):
        there = only(render({"shards": 5}), "StatefulSet")
        for program in HELMS:
            job = only(as_in_the_cluster({STATEFUL_SET: there}, {"shards": 3}, program), "Job", "scale-in")
            args = job["spec"]["template"]["spec"]["containers"][0]["args"]
            self.assertEqual(args[-4:], [f"prod-valkey-cluster-{ordinal}" for ordinal in range(6, 10)])
            for same_or_more in ({"shards": 5}, {"shards": 6}):
                self.assertEqual(of_kind(as_in_the_cluster({STATEFUL_SET: there}, same_or_more, program), "Job"), [])

    def test_pods_that_rebalance_are_not_emptied(self):
        words = "set autoRebalance=false first"
        code, _, complaint = template({"autoRebalance": True, "scaleIn": {"from": 9}})
        self.assertNotEqual(code, 0)
        self.assertIn(words, complaint)
        for values in ({}, {"autoRebalance": True}):
            # Those that run have it, whatever they are to have.
            there = only(render({"shards": 5, "autoRebalance": True}), "StatefulSet")
            with self.assertRaisesRegex(AssertionError, words):
                as_in_the_cluster({STATEFUL_SET: there}, values, HELMS[-1])
        as_in_the_cluster({STATEFUL_SET: there}, {"shards": 5}, HELMS[-1])
