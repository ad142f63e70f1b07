"""What the templates give, for every set of values in cases.yaml."""

import concurrent.futures
import re
import tempfile
import unittest

import kubernetes_validate

import yaml

from chart import (CASES, CHART, HELMS, ROOT, case, containers, environment, helm, of_kind, only, pods, render, selects, server,
                   template)
from fake_api import FakeApi

#: The name of the port that the program asks DNS for.
ASKED_FOR = re.search(r'format!\("_([a-z]+)\._tcp\.', (ROOT / "src/discovery.rs").read_text())[1]
VERSIONS = ["1.25.0", "1.29.0", "1.33.0", kubernetes_validate.latest_version()]


def apart(spec):
    """By what labels a pod knows the others that it is to keep away from; those of the chart."""
    rules = spec.get("affinity", {}).get("podAntiAffinity", {})
    for rule in rules.get("requiredDuringSchedulingIgnoredDuringExecution", []):
        yield rule["labelSelector"]["matchLabels"]
    for rule in rules.get("preferredDuringSchedulingIgnoredDuringExecution", []):
        yield rule["podAffinityTerm"]["labelSelector"]["matchLabels"]
    for rule in spec.get("topologySpreadConstraints", []):
        if rule["topologyKey"] == "topology.kubernetes.io/zone":
            yield rule["labelSelector"]["matchLabels"]


class EveryCase(unittest.TestCase):
    """Rules without an exception."""

    def for_each(self, check):
        for name in CASES:
            with self.subTest(name):
                check(name, case(name))

    def test_there_are_many(self):
        self.assertGreaterEqual(len(CASES), 25)

    def test_lint_has_nothing_to_say(self):
        for program in HELMS:
            for files in [[], *(["--values", str(file)] for file in sorted(CHART.glob("values-overrides-*.yaml")))]:
                code, said, complaint = helm("lint", "--strict", str(CHART), *files, helm=program)
                self.assertEqual(code, 0, said + complaint)

    def test_helm_3_and_4_give_the_same(self):
        def key(each):
            return (each["kind"], each["metadata"]["name"])
        def by_helm_3(name):
            return sorted(render(CASES[name], helm=HELMS[0]), key=key)
        # A password is another one each time.
        names = [name for name in CASES if "autoGenerate" not in str(CASES[name]) and name != "overrides-standalone"]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for name, three in zip(names, pool.map(by_helm_3, names)):
                with self.subTest(name):
                    self.assertEqual(three, sorted(case(name), key=key))

    def test_kubernetes_would_take_every_object(self):
        def check(name, objects):
            for each in objects:
                if each["kind"] == "ServiceMonitor":
                    continue
                for version in VERSIONS:
                    if name == "image-volume" and version < "1.33":
                        continue
                    kubernetes_validate.validate(each, version, strict=True)
        self.for_each(check)

    def test_objects_have_names_of_their_own_and_our_labels(self):
        def check(_, objects):
            names = [(each["kind"], each["metadata"]["name"]) for each in objects]
            self.assertEqual(len(names), len(set(names)))
            for each in objects:
                self.assertEqual(each["metadata"]["namespace"], "cache")
                # A StatefulSet's pods have ten characters more in a label.
                self.assertLessEqual(len(each["metadata"]["name"]), 52 if each["kind"] == "StatefulSet" else 63)
                self.assertEqual(each["metadata"]["labels"]["app.kubernetes.io/instance"], "prod")
        self.for_each(check)

    def test_selectors_find_the_servers_and_nobody_else(self):
        def check(_, objects):
            found = list(pods(objects))
            selectors = [only(objects, "StatefulSet")["spec"]["selector"]["matchLabels"]]
            selectors += [each["spec"]["selector"] for each in of_kind(objects, "Service")]
            selectors += [each["spec"]["selector"]["matchLabels"] for each in of_kind(objects, "PodDisruptionBudget")]
            selectors += [each for each in apart(only(objects, "StatefulSet")["spec"]["template"]["spec"])]
            selectors += [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(objects, "NetworkPolicy")
                          if "matchExpressions" not in each["spec"]["podSelector"]]
            for selector in selectors:
                chosen = [spec["containers"][0]["name"] for labels, spec in found if selects(selector, labels)]
                self.assertEqual(chosen, ["valkey"])
        self.for_each(check)

    def test_jobs_have_a_policy_and_metrics_a_service(self):
        def check(_, objects):
            for each in of_kind(objects, "NetworkPolicy"):
                for expression in each["spec"]["podSelector"].get("matchExpressions", []):
                    for labels, spec in pods(objects):
                        fits = selects(each["spec"]["podSelector"]["matchLabels"], labels)
                        fits = fits and labels[expression["key"]] in expression["values"]
                        self.assertEqual(fits, spec["containers"][0]["name"] != "valkey")
            for each in of_kind(objects, "ServiceMonitor"):
                wanted = each["spec"]["selector"]["matchLabels"]
                chosen = [each for each in of_kind(objects, "Service") if selects(wanted, each["metadata"]["labels"])]
                self.assertEqual([each["spec"]["clusterIP"] for each in chosen], ["None"])
                self.assertIn(each["spec"]["endpoints"][0]["port"], [port["name"] for port in chosen[0]["spec"]["ports"]])
        self.for_each(check)

    def test_the_port_has_the_name_that_discovery_asks_for(self):
        def check(_, objects):
            headless = only(objects, "Service", "headless")
            port = next(each for each in headless["spec"]["ports"] if each["name"] == ASKED_FOR)
            self.assertEqual(port.get("protocol", "TCP"), "TCP")
            own = environment(server(objects))["VALKEEPER_PORT"]
            self.assertEqual(str(port["port"]), own)
            client = only(objects, "Service", "client")["spec"]["ports"]
            self.assertEqual([str(each["port"]) for each in client], [own])
            self.assertEqual(only(objects, "StatefulSet")["spec"]["serviceName"], headless["metadata"]["name"])
            self.assertTrue(headless["spec"]["publishNotReadyAddresses"])
            service = environment(server(objects)).get("VALKEEPER_SERVICE")
            self.assertIn(service, [None, f"{headless['metadata']['name']}.cache.svc.cluster.local."])
            known = {each["containerPort"] for each in server(objects)["ports"]}
            # By number, so that a Service also leads to pods of another chart, whose ports have other names.
            for each in headless["spec"]["ports"] + only(objects, "Service", "client")["spec"]["ports"]:
                self.assertEqual(each["targetPort"], each["port"])
                self.assertIn(each["port"], known)
        self.for_each(check)

    def test_pods_are_restricted(self):
        def check(name, objects):
            for _, spec in pods(objects):
                context = spec["securityContext"]
                self.assertIs(context["runAsNonRoot"], True)
                self.assertEqual(context["seccompProfile"]["type"], "RuntimeDefault")
                self.assertEqual("runAsUser" in context, name != "openshift")
                self.assertIs(spec["automountServiceAccountToken"], False)
                self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & set(spec))
                for volume in spec.get("volumes", []):
                    self.assertFalse({"hostPath"} & set(volume))
                for each in containers(spec):
                    own = each["securityContext"]
                    self.assertIs(own["allowPrivilegeEscalation"], False)
                    self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
                    self.assertNotIn("privileged", own)
                    self.assertFalse(any("hostPort" in port for port in each.get("ports", [])))
                    if each["name"] not in ("before", "beside"):
                        self.assertIs(own["readOnlyRootFilesystem"], True)
        self.for_each(check)

    def test_what_is_mounted_is_there(self):
        def check(_, objects):
            claims = only(objects, "StatefulSet")["spec"].get("volumeClaimTemplates", [])
            claimed = {each["metadata"]["name"] for each in claims}
            made = {each["metadata"]["name"] for each in of_kind(objects, "ConfigMap") + of_kind(objects, "Secret")}
            for labels, spec in pods(objects):
                of_server = labels["app.kubernetes.io/component"] == "server"
                known = {each["name"] for each in spec.get("volumes", [])} | (claimed if of_server else set())
                for each in containers(spec):
                    mounted = {mount["name"] for mount in each.get("volumeMounts", [])}
                    self.assertLessEqual(mounted, known)
                for volume in spec.get("volumes", []):
                    source = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
                    self.assertTrue(source is None or source in made | {"mine", "certs", "valkey-auth", "valkey-tls"}, source)
        self.for_each(check)

    def test_the_grace_period_has_one_source(self):
        def check(_, objects):
            spec = only(objects, "StatefulSet")["spec"]["template"]["spec"]
            grace = spec["terminationGracePeriodSeconds"]
            self.assertEqual(environment(server(objects))["VALKEEPER_GRACE_PERIOD"], f"{grace}s")
            hook = server(objects).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            self.assertIn(hook[1:], [[], ["drain", "--grace-period", f"{grace - 5}s"]])
        self.for_each(check)


class Parts(unittest.TestCase):
    """What single values do."""

    def test_the_shape_is_that_of_the_values(self):
        for name, pods_wanted in [("defaults", 6), ("one-shard", 3), ("many-shards", 36), ("no-replicas", 3), ("standalone", 1)]:
            self.assertEqual(only(case(name), "StatefulSet")["spec"]["replicas"], pods_wanted, name)

    def test_the_job_is_no_hook_and_changes_its_name_with_what_it_does(self):
        job = only(case("init-job"), "Job", "init")
        self.assertNotIn("annotations", job["metadata"])
        other = only(render({"clusterInit": {"mode": "job", "timeout": "20m"}, "shards": 4}), "Job", "init")
        self.assertNotEqual(job["metadata"]["name"], other["metadata"]["name"])
        self.assertNotIn("VALKEEPER_BOOTSTRAP", environment(server(case("init-job"))))
        self.assertEqual(environment(server(case("defaults")))["VALKEEPER_BOOTSTRAP"], "true")
        self.assertEqual(of_kind(case("defaults"), "Job"), [])

    def test_nobody_forms_a_cluster_where_one_stands(self):
        self.assertNotIn("VALKEEPER_BOOTSTRAP", environment(server(case("init-nobody"))))
        self.assertEqual(of_kind(case("init-nobody"), "Job"), [])

    def test_pods_are_emptied_before_they_are_taken_away(self):
        job = only(case("scale-in"), "Job", "scale-in")
        self.assertEqual(job["metadata"]["annotations"]["helm.sh/hook"], "pre-upgrade")
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        name = "prod-valkey-cluster"
        self.assertEqual(args, ["evacuate", "--shards", "3", "--timeout", "2h", f"{name}-6", f"{name}-7"])
        args = only(case("scale-in-replicas"), "Job", "scale-in")["spec"]["template"]["spec"]["containers"][0]["args"]
        self.assertEqual(args[-3:], [f"{name}-6", f"{name}-7", f"{name}-8"])
        self.assertEqual(of_kind(case("scale-in-off"), "Job"), [])
        self.assertEqual(of_kind(render({"scaleIn": {"from": 6}}), "Job"), [])

    def test_maxmemory_follows_from_the_limit(self):
        def conf(name):
            return only(case(name), "ConfigMap")["data"]["valkey.conf"].splitlines()
        self.assertIn(f"maxmemory {512 * 2**20 * 60 // 100}", conf("defaults"))
        self.assertIn(f"maxmemory {3 * 2**29 * 50 // 100}", conf("memory-share"))
        self.assertIn("maxmemory 100mb", conf("configuration"))
        self.assertIn("maxmemory 104857600", conf("plain-maxmemory"))
        self.assertIn(f"maxmemory {2**30 * 60 // 100}", conf("plain-numbers"))
        self.assertEqual([line for line in conf("bare") if line.startswith("maxmemory ")], [])

    def test_a_change_of_the_configuration_rolls_the_pods_and_a_change_of_the_password_does_not(self):
        def checksum(values):
            template = only(render(values), "StatefulSet")["spec"]["template"]
            return template["metadata"]["annotations"]["checksum/config"]
        self.assertNotEqual(checksum({}), checksum({"config": {"extra": "hz 20"}}))
        one, two = ({"auth": {"enabled": True, "password": word}} for word in ("one", "two"))
        stateful = [only(render(values), "StatefulSet") for values in (one, two)]
        self.assertEqual(*stateful)

    def test_tls_is_asked_of_clients_and_of_the_bus_as_told(self):
        for name, clients, bus in (("tls", "yes", "yes"), ("tls-optional", "optional", "no")):
            conf = only(case(name), "ConfigMap")["data"]["valkey.conf"].splitlines()
            tls = [line for line in conf if line.startswith("tls-")]
            self.assertEqual(tls, [f"tls-auth-clients {clients}", f"tls-cluster {bus}"])

    def test_standalone_has_nothing_of_a_cluster(self):
        objects = case("standalone")
        self.assertEqual(of_kind(objects, "Job") + of_kind(objects, "PodDisruptionBudget"), [])
        self.assertNotIn("cluster-enabled", only(objects, "ConfigMap")["data"]["valkey.conf"])
        self.assertEqual(environment(server(objects))["VALKEEPER_MODE"], "standalone")
        self.assertIn('save ""', only(objects, "ConfigMap")["data"]["valkey.conf"])

    def test_the_zone_comes_from_the_label(self):
        def zone(name):
            return [each for each in server(case(name))["env"] if each["name"] == "VALKEEPER_ZONE"]
        path = "metadata.labels['topology.kubernetes.io/zone']"
        self.assertEqual(zone("defaults")[0]["valueFrom"], {"fieldRef": {"fieldPath": path}})
        self.assertEqual(zone("scheduling-own"), [])

    def test_whatever_families_of_addresses_there_are(self):
        for each in of_kind(case("dual-stack"), "Service"):
            self.assertEqual(each["spec"]["ipFamilies"], ["IPv6", "IPv4"])
        # The Services may be left to a cluster of either family; there, it is both.
        for name in ("defaults", "dual-stack"):
            self.assertEqual(environment(server(case(name)))["VALKEEPER_LISTEN"], "[::]:9121")

    def test_a_number_may_be_the_name_of_a_release_and_of_a_namespace(self):
        values = {"fullnameOverride": "cache", "clusterInit": {"mode": "job"}, "scaleIn": {"from": 9}, "networkPolicy": {"enabled": True},
                  "auth": {"enabled": True, "password": "a"}, "metrics": {"serviceMonitor": {"enabled": True}}}
        code, text, complaint = helm("template", "123", str(CHART), "--namespace", "456", values=values)
        self.assertEqual(code, 0, complaint)
        for each in [each for each in yaml.safe_load_all(text) if each]:
            if each["kind"] != "ServiceMonitor":
                kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
            self.assertEqual((each["metadata"]["namespace"], each["metadata"]["labels"]["app.kubernetes.io/instance"]), ("456", "123"))
        for name, values in (("123", {}), ("prod", {"fullnameOverride": "1"}), ("prod", {"fullnameOverride": "Cache"})):
            code, _, complaint = helm("template", name, str(CHART), values=values)
            self.assertNotEqual(code, 0)
            self.assertIn("fullnameOverride", complaint)

    def test_long_names_that_begin_alike_stay_two(self):
        names = set()
        for end in "ab":
            objects = render({"nameOverride": "x" * 60 + end, "clusterInit": {"mode": "job"}})
            names |= {each["metadata"]["name"] for each in objects if each["kind"] == "StatefulSet"}
            self.assertTrue(all(len(each["metadata"]["name"]) <= 63 for each in objects))
        self.assertEqual(len(names), 2)

    def test_a_label_is_given_once_and_those_that_are_selected_by_are_the_charts(self):
        for program in HELMS:
            _, text, _ = template(CASES["names"], helm=program)
            for text in text.split("\n---\n"):
                for block in re.findall(r"(?m)^( *)labels:\n((?:\1 +.*\n)+)", text):
                    keys = [line.split(":")[0] for line in block[1].splitlines()]
                    self.assertEqual(len(keys), len(set(keys)), block)
        labels = only(case("names"), "StatefulSet")["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(labels, {"team": "c", "tier": "b", "app.kubernetes.io/name": "store", "app.kubernetes.io/instance": "prod",
                                  "app.kubernetes.io/component": "server"})
        self.assertEqual(only(case("names"), "Service", "client")["metadata"]["labels"]["team"], "d")

    def test_the_binary_comes_as_told(self):
        spec = only(case("image-volume"), "StatefulSet")["spec"]["template"]["spec"]
        self.assertNotIn("initContainers", spec)
        volume = next(each for each in spec["volumes"] if each["name"] == "valkeeper")
        self.assertTrue(volume["image"]["reference"].startswith("registry.example/valkeeper/valkeeper@sha256:"))
        own = server(case("server-image"))
        self.assertEqual(own["command"], ["/usr/bin/valkeeper"])
        self.assertEqual(own["image"], "registry.example/team/valkey:9.1-keeper")
        job = only(case("server-image"), "Job")["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual((job["image"], job["command"]), (own["image"], own["command"]))

    def test_the_files_of_overrides_give_what_the_guide_says(self):
        cluster = case("overrides-cluster")
        own = environment(server(cluster))
        self.assertEqual((own["VALKEEPER_TLS"], own["VALKEEPER_AOF_PARTIAL_RESYNC"]), ("true", "true"))
        self.assertEqual(own["VALKEEPER_PASSWORD_FILE"], "/etc/valkeeper/password/password")
        self.assertEqual(of_kind(cluster, "Secret"), [])
        self.assertEqual(of_kind(cluster, "NetworkPolicy")[0]["spec"]["ingress"][2]["from"],
                         [{"podSelector": {"matchLabels": {"prod-valkey-cluster-client": "true"}}}])
        only(cluster, "ServiceMonitor")
        stateful = only(cluster, "StatefulSet")["spec"]
        # Six machines: three shards with a replica each, and no two pods share one.
        self.assertEqual((stateful["replicas"], own["VALKEEPER_SHARDS"], own["VALKEEPER_REPLICAS"]), (6, "3", "1"))
        rules = stateful["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        self.assertEqual([rule["topologyKey"] for rule in rules], ["kubernetes.io/hostname"])
        resources = server(cluster)["resources"]
        self.assertEqual((resources["requests"]["memory"], resources["limits"]), ("4Gi", {"memory": "4Gi"}))
        volume = stateful["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
        self.assertEqual((volume, own["VALKEEPER_LOG_FORMAT"]), ("16Gi", "json"))
        secrets = {each["secret"]["secretName"] for each in stateful["template"]["spec"]["volumes"] if "secret" in each}
        self.assertEqual(secrets, {"valkey-auth", "valkey-tls"})
        conf = only(cluster, "ConfigMap")["data"]["valkey.conf"].splitlines()
        self.assertLessEqual({"appendonly yes", "tls-cluster yes", f"maxmemory {2**32 * 60 // 100}"}, set(conf))
        alone = case("overrides-standalone")
        self.assertEqual(only(alone, "StatefulSet")["spec"]["replicas"], 1)
        secret = only(alone, "Secret")["metadata"]
        self.assertEqual((secret["name"], secret["annotations"]["valkey-cluster/auto-generated"]), ("prod-valkey-cluster", "true"))
        self.assertEqual(server(alone)["resources"]["limits"], {"memory": "1Gi"})
        self.assertEqual(environment(server(alone))["VALKEEPER_MODE"], "standalone")
        claim = only(alone, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]
        self.assertEqual(claim["resources"]["requests"]["storage"], "8Gi")
        self.assertIn("appendonly yes", only(alone, "ConfigMap")["data"]["valkey.conf"])

    def test_a_release_says_how_to_use_it(self):
        for values, words in [({}, ["no password", "valkeeper status"]), ({"shards": 2, "replicas": 0}, ["majority", "no shard has a replica"]),
                              ({"persistence": {"enabled": False}}, ["no volume"]), ({"service": {"type": "NodePort"}}, ["NodePort"])]:
            with FakeApi({}) as api, tempfile.TemporaryDirectory() as folder:
                args = ["--dry-run=client", "--kubeconfig", str(api.kubeconfig(folder))]
                code, said, complaint = helm("install", "prod", str(CHART), *args, values=values)
            self.assertEqual(code, 0, complaint)
            notes = said.split("NOTES:")[1]
            for word in words:
                self.assertIn(word, notes)
