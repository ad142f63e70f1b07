"""The chart, rendered by a real Helm."""

import concurrent.futures
import functools
import os
import pathlib
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/valkey-cluster"
TOOLS = ROOT / "target/chart"
HELMS = [TOOLS / "helm3", TOOLS / "helm4"]
RELEASE = "prod"
NAMESPACE = "cache"

CASES = yaml.safe_load((pathlib.Path(__file__).parent / "cases.yaml").read_text())


def helm(*args, helm=HELMS[-1], values=None, env=None):
    """Runs Helm to its end: its exit code, what it printed, and what it complained of."""
    with tempfile.TemporaryDirectory() as home:
        files = []
        if values:
            name = pathlib.Path(home) / "values.yaml"
            name.write_text(yaml.safe_dump(values))
            files = ["--values", str(name)]
        surroundings = {"HOME": home, "PATH": os.environ["PATH"], **(env or {})}
        done = subprocess.run(
            [str(helm), *args, *files], capture_output=True, text=True, timeout=60, check=False, env=surroundings
        )
    return done.returncode, done.stdout, done.stderr


def merged(values, more):
    """Values with others over them, as Helm puts them together."""
    both = dict(values)
    for key, value in more.items():
        below = both.get(key)
        both[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def whole(values):
    """The values of a case with those of the file that it names."""
    values = dict(values)
    file = values.pop("file", None)
    return merged(yaml.safe_load((CHART / file).read_text()), values) if file else values


def template(values, *args, chart=CHART, **how):
    """`helm template` with these values."""
    values = dict(values)
    file = values.pop("file", None)
    files = ["--values", str(CHART / file)] if file else []
    return helm("template", RELEASE, str(chart), "--namespace", NAMESPACE, *files, *args, values=values, **how)


def render(values, *args, **how):
    """The objects that these values give."""
    code, text, complaint = template(values, *args, **how)
    if code:
        raise AssertionError(complaint)
    return [each for each in yaml.safe_load_all(text) if each]


def each_of(values, do=render):
    """What is done with each of these values, in their order; Helm is a process each time, so that several run at once."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(do, values))


@functools.cache
def rendered():
    """The objects of every case."""
    return dict(zip(CASES, each_of(CASES.values())))


def case(name):
    """The objects of a case."""
    return rendered()[name]


def of_kind(objects, kind, component=None):
    """Those of a kind, and of a component where one is given."""
    def fits(each):
        labels = each["metadata"].get("labels", {})
        return each["kind"] == kind and component in (None, labels.get("app.kubernetes.io/component"))
    return [each for each in objects if fits(each)]


def only(objects, kind, component=None):
    """The one of a kind."""
    found = of_kind(objects, kind, component)
    assert len(found) == 1, f"{len(found)} of {kind} {component}"
    return found[0]


def pods(objects):
    """The labels and the spec of every pod that the objects make."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["labels"], each["spec"]
        elif each["kind"] in ("StatefulSet", "Job"):
            yield each["spec"]["template"]["metadata"]["labels"], each["spec"]["template"]["spec"]


def containers(spec):
    """All containers of a pod."""
    return spec.get("initContainers", []) + spec["containers"]


def server(objects):
    """The container of the server."""
    spec = only(objects, "StatefulSet")["spec"]["template"]["spec"]
    return next(each for each in spec["containers"] if each["name"] == "valkey")


def environment(container):
    """Its variables that have a value of their own."""
    return {each["name"]: each.get("value") for each in container.get("env", [])}


def selects(selector, labels):
    """Whether a selector of labels fits."""
    return all(labels.get(key) == value for key, value in selector.items())
