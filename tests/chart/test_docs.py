"""What the guides say of the program, the chart and the image is so."""

import re
import subprocess
import unittest

import yaml

from chart import CHART, ROOT, only, render, server

GUIDE = (ROOT / "docs/troubleshooting.md").read_text()
MIGRATING = (ROOT / "docs/migrating.md").read_text()
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
