"""What the guides say of the program, the chart and the image is so."""

import re
import subprocess
import unittest

import yaml

from chart import CHART, ROOT, environment, helm, of_kind, only, render, server, template

GUIDE = (ROOT / "docs/troubleshooting.md").read_text()
MIGRATING = (ROOT / "docs/migrating.md").read_text()
PRODUCTION = (CHART / "PRODUCTION.md").read_text()
#: What guides name like a value and is none: files, parts of a report, and what only Kubernetes knows.
NO_VALUES = {"dump.rdb", "nodes.before", "nodes.conf", "valkey.conf", "handover.given_up", "save.outcome", "save.took_ms",
             "updateStrategy.rollingUpdate.partition"}
#: What the troubleshooting guide quotes, and the parts of it that are not filled in by the program.
QUOTED = {
    "waiting: valkey-4 has no address": ["waiting: ", " has no address"],
    "is not reachable: connection refused": ["is not reachable: connection refused"],
    "drained:": ["drained: {"],
    "shard 1 has no replica": ["shard {shard} has {has}", "no replica"],
    "the last drain was": ["the last drain was {}"],
    "unfinished": ['"unfinished"'],
    "connection refused": ["connection refused"],
}
#: Words that are not quoted, only stressed.
STRESSED = {"all"}


def unwrapped(text):
    """As one line, whatever lines it is broken into; also where a string of Rust goes on in the next one."""
    return re.sub(r"\s+", " ", re.sub(r"\\\\?\n\s*", "", text))


SOURCES = unwrapped(" ".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.rs"))))


def paths(values, above=""):
    """Every value, and all that holds some."""
    for key, value in values.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from paths(value, f"{above}{key}.")


class Guides(unittest.TestCase):
    """They do not rot."""

    def test_what_troubleshooting_quotes_is_what_the_program_says(self):
        quotes = {unwrapped(each) for each in re.findall(r"(?<![*\w])\*([^*\n][^*]*)\*(?!\*)", GUIDE)} - STRESSED
        self.assertGreater(len(quotes), 10)
        for quote in quotes:
            for part in QUOTED.get(quote, [quote]):
                self.assertTrue(part in SOURCES, quote)
        self.assertLessEqual(set(QUOTED), quotes, "no longer quoted")

    def test_what_migrating_says_is_refused_is_what_the_program_says(self):
        table = MIGRATING.split("## What is refused")[1]
        for sentence in re.findall(r"^\| `([^`]+)` \|", table, re.M):
            for part in re.split(r"\s*…\S*\s*| [0-9] primaries, ", sentence):
                self.assertTrue(part.strip(" ,…") in SOURCES, sentence)

    def test_links_lead_somewhere(self):
        for guide in [*(ROOT / "docs").glob("*.md"), *CHART.glob("*.md"), ROOT / "README.md"]:
            for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", guide.read_text()):
                file = (guide.parent / target) if target else guide
                self.assertTrue(file.exists(), f"{guide.name}: {target}")
                if anchor and file.suffix == ".md":
                    titles = [re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
                              for line in file.read_text().splitlines() if line.startswith("#")]
                    self.assertIn(anchor, titles, guide.name)

    def test_the_values_for_migrating_mount_what_the_other_chart_mounts(self):
        values = yaml.safe_load(re.search(r"```yaml\n(fullnameOverride.*?)```", MIGRATING, re.S)[1])
        objects = render(values)
        pod = only(objects, "StatefulSet")["spec"]
        self.assertEqual(only(objects, "StatefulSet")["metadata"]["name"], "shop-valkey-cluster")
        self.assertEqual(pod["serviceName"], "shop-valkey-cluster-headless")
        mount = next(each for each in server(objects)["volumeMounts"] if each["name"] == "valkey-data")
        self.assertEqual(mount, {"name": "valkey-data", "mountPath": "/bitnami/valkey/data"})
        self.assertEqual([each["metadata"]["name"] for each in pod["volumeClaimTemplates"]], ["valkey-data"])
        self.assertEqual(pod["updateStrategy"], {"type": "OnDelete"})
        self.assertNotIn("VALKEEPER_BOOTSTRAP", [each["name"] for each in server(objects)["env"]])
        self.assertEqual([each for each in objects if each["kind"] == "Job"], [])

    def test_values_that_guides_name_are_values_of_the_chart(self):
        known = set(paths(yaml.safe_load((CHART / "values.yaml").read_text())))
        found = set()
        for text in (PRODUCTION, MIGRATING, (CHART / "README.md").read_text(), (ROOT / "README.md").read_text(), GUIDE):
            prose = re.sub(r"(?ms)^ *```.*?^ *```", "", text)
            found |= set(re.findall(r"`([a-z][A-Za-z]*(?:\.[a-zA-Z_]+)+)(?:\.\*)?(?:[:=][^`]*)?`", prose))
            found |= set(re.findall(r"`([a-z][A-Za-z]*)\.\*`", prose)) | set(re.findall(r"--set ([A-Za-z.]+)=", text))
        self.assertGreater(len(found), 100)
        # Where a sentence is about one group of them, it leaves the group's name out.
        strange = {name for name in found - known if not any(path.endswith(f".{name}") for path in known)}
        self.assertEqual(strange, NO_VALUES)

    def test_values_in_the_guide_to_production_are_taken(self):
        blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PRODUCTION, re.S)]
        values = [block for block in blocks if "kind" not in block]
        self.assertGreater(len(values), 0)
        for each in values:
            code, _, complaint = template(each)
            self.assertEqual(code, 0, complaint)

    def test_the_labels_for_migrating_are_what_the_servers_are_selected_by(self):
        values = yaml.safe_load(re.search(r"```yaml\n(fullnameOverride.*?)```", MIGRATING, re.S)[1])
        code, text, complaint = helm("template", "shop", str(CHART), values=values)
        self.assertEqual(code, 0, complaint)
        wanted = only([each for each in yaml.safe_load_all(text) if each], "StatefulSet")["spec"]["selector"]["matchLabels"]
        command = re.search(r"kubectl label pods (.*)", MIGRATING)[1]
        self.assertEqual(dict(re.findall(r"([a-z./]+)=([a-z-]+)", command)), wanted)
        self.assertEqual(len(wanted), 3)
        sentence = MIGRATING.split("The selector is ")[1].split(". ")[0]
        self.assertEqual(set(re.findall(r"`(app\.kubernetes\.io/[a-z]+)", sentence)), set(wanted))

    def test_the_certificate_is_for_the_names_that_are_asked_for(self):
        certificate = yaml.safe_load(re.search(r"```yaml\n(apiVersion: cert-manager.*?)```", PRODUCTION, re.S)[1])["spec"]
        values = {"tls": {"enabled": True, "existingSecret": certificate["secretName"]}}
        self.assertIn(f"`tls.existingSecret: {certificate['secretName']}`", PRODUCTION)
        objects = render(values)
        name = only(objects, "StatefulSet")["metadata"]["name"]
        names = [each.replace("NAMESPACE", "cache").replace("NAME", name) for each in certificate["dnsNames"]]
        services = {each["metadata"]["labels"]["app.kubernetes.io/component"]: f"{each['metadata']['name']}.cache.svc.cluster.local"
                    for each in of_kind(objects, "Service")}
        self.assertEqual(names, [f"*.{services['headless']}", services["client"]])
        # The name that pods go by, to each other and to whoever looks after them.
        self.assertEqual(environment(server(objects))["VALKEEPER_SERVICE"], f"{services['headless']}.")
        self.assertEqual(set(certificate["usages"]), {"server auth", "client auth"})

    def test_make_image_tags_what_the_chart_pulls(self):
        done = subprocess.run(["make", "--dry-run", "image"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        init = only(render({}), "StatefulSet")["spec"]["template"]["spec"]["initContainers"][0]["image"]
        self.assertIn(f"--tag {init} ", done.stdout.replace("'", ""))
        # The Dockerfile has options that the builder of older engines does not know.
        self.assertIn("COPY --from=binary --chmod", (ROOT / "docker/Dockerfile").read_text())
        builds = [line for line in done.stdout.splitlines() if "docker build" in line]
        self.assertEqual([line.startswith("DOCKER_BUILDKIT=1 ") for line in builds], [True, True])
        for arg in ("VERSION", "REVISION"):
            self.assertRegex(done.stdout, rf"--build-arg '?{arg}=[0-9a-f]")
