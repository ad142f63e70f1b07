"""Every variable and argument that the templates pass is one that the program takes; it parses them itself."""

import concurrent.futures
import functools
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from chart import CASES, case, containers, of_kind, only, pods

PROGRAM = os.environ.get("VALKEEPER", "")
#: A wrong option ends with this code.
USAGE = 64
#: What each command ends with when all is well with its options, and there is no server.
EXPECTED = {"run": {127}, "bootstrap": {69}, "status": {69}, "evacuate": {69, 75}, "probe": {1}, "drain": {69}, "install": {0}}


@functools.cache
def variables(command):
    """The variables that a command knows."""
    done = subprocess.run([PROGRAM, command, "--help"], capture_output=True, text=True, timeout=30, check=True)
    return set(re.findall(r"\[env: ([A-Z_]+)=", done.stdout))


@functools.cache
def files():
    """The folders that containers find their password and certificates in."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="valkeeper-chart-"))
    for name in ("password", "tls", "data"):
        (folder / name).mkdir()
    (folder / "password/password").write_text("secret\n")
    key, certificate = folder / "tls/tls.key", folder / "tls/tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test", "-keyout", key,
         "-out", certificate], capture_output=True, timeout=60, check=True)
    (folder / "tls/ca.crt").write_text(certificate.read_text())
    return folder


def run(command, env, configuration):
    """Runs a command as its container would, as far as there is no server to be had."""
    with tempfile.TemporaryDirectory() as data:
        if command[0] == "run":
            conf = pathlib.Path(data) / "valkey.conf"
            conf.write_text(re.sub("(?m)^dir .*$", f"dir {data}", configuration))
            command = command[:command.index("--") + 1] + ["/no/such/valkey-server", str(conf)]
        if command[0] == "install":
            command = ["install", data]
        if "--timeout" in command:
            command[command.index("--timeout") + 1] = "1s"
        # Nobody is asked: a name server and a port of this machine at which nobody listens.
        env = {**env, "VALKEEPER_DNS_SERVER": "127.0.0.1:1", "POD_IP": "127.0.0.1"}
        if "VALKEEPER_LISTEN" in env:
            env["VALKEEPER_LISTEN"] = re.sub(r":\d+$", ":0", env["VALKEEPER_LISTEN"])
        if command[0] != "run":
            env["VALKEEPER_PORT"] = "1"
        done = subprocess.run([PROGRAM, *command], env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def commands(objects):
    """Every command of ours that a container runs, with its variables."""
    for _, spec in pods(objects):
        for each in containers(spec):
            if not each.get("command", [""])[0].endswith("valkeeper"):
                continue
            # What the kubelet fills in.
            filled = {"metadata.name": "valkey-0", "status.podIP": "127.0.0.1", "spec.nodeName": "machine-1"}
            env = {}
            for variable in each.get("env", []):
                path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
                env[variable["name"]] = variable.get("value", filled.get(path, ""))
                env[variable["name"]] = env[variable["name"]].replace("/etc/valkeeper", str(files()))
            hooks = [each.get("lifecycle", {}).get("preStop", {})]
            hooks += [each.get(f"{kind}Probe", {}) for kind in ("startup", "liveness", "readiness")]
            others = [hook["exec"]["command"][1:] for hook in hooks if hook]
            for command in [each["args"], *others]:
                yield list(command), env


class Program(unittest.TestCase):
    """The real one."""

    def setUp(self):
        self.assertTrue(os.access(PROGRAM, os.X_OK), f"VALKEEPER={PROGRAM} is not the program")

    def test_every_variable_is_one_that_the_program_knows(self):
        for name in CASES:
            for command, env in commands(case(name)):
                if command[0] in ("install", "probe", "drain"):
                    # They have the variables of the container that they run in, whatever its own command is.
                    continue
                ours = {key for key in env if key.startswith(("VALKEEPER_", "POD_", "VALKEY"))}
                self.assertLessEqual(ours, variables(command[0]) | ({"POD_NAME", "POD_IP"} if command[0] == "run" else set()), name)

    def test_every_argument_and_every_value_is_taken(self):
        wanted = {}
        for name in CASES:
            objects = case(name)
            conf = of_kind(objects, "ConfigMap")
            conf = conf[0]["data"]["valkey.conf"] if conf else "cluster-enabled yes\ndir /data\n"
            for command, env in commands(objects):
                wanted.setdefault((tuple(command), tuple(sorted(env.items())), conf), name)
        self.assertGreater(len(wanted), 100)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            running = {pool.submit(run, list(command), dict(env), conf): (command, name)
                       for (command, env, conf), name in wanted.items()}
            for each in concurrent.futures.as_completed(running):
                command, name = running[each]
                code, complaint = each.result()
                self.assertIn(code, EXPECTED[command[0]], f"{name}: {command}: {complaint}")

    def test_a_wrong_value_would_be_noticed(self):
        command, env = next(commands(case("defaults")))
        conf = only(case("defaults"), "ConfigMap")["data"]["valkey.conf"]
        server = next((command, env) for command, env in commands(case("defaults")) if command[0] == "run")
        code, _ = run(list(server[0]), {**server[1], "VALKEEPER_SHARDS": "many"}, conf)
        self.assertEqual(code, USAGE)
        code, _ = run(["probe", "sometimes"], env, conf)
        self.assertEqual(code, USAGE)
