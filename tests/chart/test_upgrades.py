"""What an upgrade may change, and what restarts pods."""

import contextlib
import itertools
import pathlib
import shutil
import tempfile
import unittest

from chart import CHART, case, each_of, merged, of_kind, only, render

#: Forms the cluster by a Job, and empties pods by another.
JOBS = {"clusterInit": {"mode": "job"}, "scaleIn": {"from": 12}}
PINNED = {"binary": {"image": {"tag": "1"}}}
DIGEST = {"binary": {"image": {"digest": "sha256:" + "0" * 64}}}
SERVER = {"binary": {"source": "server"}}
LABELS = {"commonLabels": {"team": "a"}}


@contextlib.contextmanager
def another_version():
    """The chart as its next version."""
    with tempfile.TemporaryDirectory() as folder:
        chart = pathlib.Path(folder) / CHART.name
        shutil.copytree(CHART, chart)
        about = chart / "Chart.yaml"
        text = about.read_text()
        about.write_text(text.replace("ersion: 0.1.0", "ersion: 99.0.0"))
        assert about.read_text() != text
        yield chart


class Upgrades(unittest.TestCase):
    """From each to each."""

    def test_a_job_that_keeps_its_name_keeps_what_cannot_be_changed(self):
        values = [merged(JOBS, more) for more in (
            {}, LABELS, PINNED, merged(PINNED, LABELS), DIGEST, merged(DIGEST, LABELS), SERVER, merged(SERVER, LABELS),
            {"commonAnnotations": {"a": "b"}}, {"clusterInit": {"backoffLimit": 1, "ttlSecondsAfterFinished": 60}},
            {"nodeSelector": {"disk": "fast"}}, {"podLabels": {"a": "b"}}, {"shards": 4},
        )]
        with another_version() as chart:
            made = each_of(values) + each_of(values, lambda each: render(each, chart=chart))
        jobs = [only(objects, "Job", "init") for objects in made]
        same = 0
        for one, two in itertools.combinations(jobs, 2):
            if one["metadata"]["name"] == two["metadata"]["name"]:
                same += 1
                for key in ("template", "podFailurePolicy"):
                    self.assertEqual(one["spec"][key], two["spec"][key])
        self.assertGreater(same, len(values), "a version alone, and what is no part of the pods, leave the name")
        self.assertGreater(len({each["metadata"]["name"] for each in jobs}), 8)

    def test_every_other_job_is_gone_before_it_is_made_again(self):
        jobs = of_kind(render(JOBS), "Job") + of_kind(case("scale-in"), "Job")
        others = [each for each in jobs if each["metadata"]["labels"]["app.kubernetes.io/component"] != "init"]
        self.assertEqual(len(others), 2)
        for each in others + of_kind(case("defaults"), "Pod"):
            self.assertIn("before-hook-creation", each["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(","))

    def test_what_cannot_be_changed_of_the_servers_is_not_changed_by_a_label_or_a_version(self):
        def kept(objects):
            spec = only(objects, "StatefulSet")["spec"]
            return {key: spec[key] for key in ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates")}
        with another_version() as chart:
            for objects in (render(LABELS), render({}, chart=chart)):
                self.assertEqual(kept(objects), kept(case("defaults")))

    def test_pods_are_not_rolled_over_a_configuration_that_they_do_not_mount(self):
        own = {"existingConfigMap": "mine"}
        stateful = [only(render({"config": {**own, **more}}), "StatefulSet") for more in ({}, {"extra": "hz 20", "maxmemory": 1})]
        self.assertEqual(*stateful)
        other = only(render({"config": {"existingConfigMap": "other"}}), "StatefulSet")
        checksums = [each["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for each in (stateful[0], other)]
        self.assertNotEqual(*checksums)
