"""As much of the Kubernetes API as Helm asks when a template looks an object up. No real one can be had in a test."""

import http.server
import json
import pathlib
import threading

import yaml

RESOURCES = {
    "/api/v1": [("secrets", "Secret"), ("services", "Service"), ("configmaps", "ConfigMap"), ("pods", "Pod"),
                ("serviceaccounts", "ServiceAccount")],
    "/apis/apps/v1": [("statefulsets", "StatefulSet")],
    "/apis/batch/v1": [("jobs", "Job")],
    "/apis/policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget")],
    "/apis/networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy")],
}


class FakeApi:
    """Answers for these objects: a path to each of them."""

    def __init__(self, objects):
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.split("?")[0]
                self.answer(*api.get(path))

            def answer(self, code, body):
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.objects = objects
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def get(self, path):
        if path == "/version":
            return 200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [name.removeprefix("/apis/") for name in RESOURCES if name.startswith("/apis/")]
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": group.split("/")[0], "versions": [{"groupVersion": group, "version": "v1"}],
                 "preferredVersion": {"groupVersion": group, "version": "v1"}} for group in groups]}
        if path in RESOURCES:
            version = path.removeprefix("/apis/").removeprefix("/api/")
            return 200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [
                {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
                for plural, kind in RESOURCES[path]]}
        if path in self.objects:
            return 200, self.objects[path]
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def kubeconfig(self, folder):
        """A file that leads to it."""
        host, port = self.server.server_address[:2]
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": f"http://{host}:{port}"}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        }
        file = pathlib.Path(folder) / "kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
