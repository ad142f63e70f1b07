"""Who reaches whom by the network policies."""

import copy
import unittest

from chart import case, of_kind, only

SERVER = {"app.kubernetes.io/name": "valkey-cluster", "app.kubernetes.io/instance": "prod",
          "app.kubernetes.io/component": "server"}
JOB = {**SERVER, "app.kubernetes.io/component": "init"}
OTHER_CLUSTER = {**SERVER, "app.kubernetes.io/instance": "other"}
STRANGER = {"app": "shop"}
CLIENT = {"prod-valkey-cluster-client": "true"}
ROLE = {"role": "client"}
APPS = {"kubernetes.io/metadata.name": "apps"}
MONITORING = {"kubernetes.io/metadata.name": "monitoring"}
HERE = {"kubernetes.io/metadata.name": "cache"}


def fits(selector, labels):
    """As Kubernetes does: matchLabels and matchExpressions with In."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))


def is_peer(peer, labels, namespace):
    """Whether a pod is meant; without a selector of namespaces, one of this namespace."""
    if "namespaceSelector" in peer:
        return fits(peer["namespaceSelector"], namespace) and fits(peer.get("podSelector", {}), labels)
    return namespace == HERE and fits(peer["podSelector"], labels)


def lets_in(policies, port, labels, namespace=HERE, to=None, protocol="TCP"):
    """Whether a pod with these labels reaches the port of one of our servers, or of another pod of ours."""
    chosen = [each for each in policies if fits(each["spec"]["podSelector"], to or SERVER)]
    if not chosen:
        return True
    for policy in chosen:
        for rule in policy["spec"].get("ingress", []):
            here = any(
                each["protocol"] == protocol and each["port"] <= port <= each.get("endPort", each["port"])
                for each in rule["ports"])
            if here and ("from" not in rule or any(is_peer(peer, labels, namespace) for peer in rule["from"])):
                return True
    return False


class Network(unittest.TestCase):
    """The matrix."""

    def test_by_default_the_bus_alone_is_closed_to_strangers(self):
        policies = of_kind(case("defaults"), "NetworkPolicy")
        for labels in (STRANGER, JOB, OTHER_CLUSTER):
            self.assertFalse(lets_in(policies, 16379, labels))
            for port in (1, 22, 6379, 9121, 16378, 16380, 65535):
                self.assertTrue(lets_in(policies, port, labels, APPS), port)
            for protocol in ("UDP", "SCTP"):
                self.assertTrue(lets_in(policies, 16379, labels, protocol=protocol))
        self.assertTrue(lets_in(policies, 16379, SERVER))
        self.assertFalse(lets_in(policies, 16379, SERVER, APPS), "another namespace's")
        self.assertEqual(only(case("defaults"), "NetworkPolicy")["spec"]["policyTypes"], ["Ingress"])

    def test_a_network_that_knows_no_ranges_of_ports_lets_clients_and_metrics_in(self):
        for name, client, metrics, bus in (("defaults", 6379, 9121, 16379), ("other-port", 7000, 9999, 17000)):
            policies = copy.deepcopy(of_kind(case(name), "NetworkPolicy"))
            for rule in policies[0]["spec"]["ingress"]:
                for each in rule["ports"]:
                    each.pop("endPort", None)
            for port in (client, metrics):
                self.assertTrue(lets_in(policies, port, STRANGER, APPS), (name, port))
            self.assertFalse(lets_in(policies, bus, STRANGER))
            self.assertTrue(lets_in(policies, bus, {**SERVER}))

    def test_the_bus_that_is_closed_is_that_of_the_port_in_use(self):
        self.assertFalse(lets_in(of_kind(case("other-port"), "NetworkPolicy"), 17000, STRANGER))
        self.assertFalse(lets_in(of_kind(case("tls-optional"), "NetworkPolicy"), 16380, STRANGER))

    def test_it_can_be_left_out(self):
        self.assertEqual(of_kind(case("network-none"), "NetworkPolicy"), [])
        self.assertEqual(of_kind(case("standalone"), "NetworkPolicy"), [])

    def test_open_to_clients_and_nobody_else(self):
        policies = of_kind(case("network-open"), "NetworkPolicy")
        for labels, namespace in ((STRANGER, APPS), (JOB, HERE), (SERVER, HERE)):
            self.assertTrue(lets_in(policies, 6379, labels, namespace))
            self.assertTrue(lets_in(policies, 9121, labels, namespace))
            self.assertFalse(lets_in(policies, 22, labels, namespace))
        self.assertFalse(lets_in(policies, 16379, STRANGER, APPS))
        self.assertFalse(lets_in(policies, 16379, JOB))
        self.assertTrue(lets_in(policies, 16379, SERVER))

    def test_closed_but_for_those_that_are_named(self):
        policies = of_kind(case("network-closed"), "NetworkPolicy")
        for labels, namespace, may in (
            (SERVER, HERE, True), (JOB, HERE, True), (CLIENT, HERE, True), (ROLE, APPS, True),
            (STRANGER, HERE, False), (STRANGER, APPS, False), (CLIENT, APPS, False), (ROLE, HERE, False),
            (OTHER_CLUSTER, HERE, False),
        ):
            self.assertEqual(lets_in(policies, 6379, labels, namespace), may, (labels, namespace))
            self.assertEqual(lets_in(policies, 16379, labels, namespace), (labels, namespace) == (SERVER, HERE))
            self.assertFalse(lets_in(policies, 9121, labels, namespace))
        self.assertTrue(lets_in(policies, 9121, STRANGER, MONITORING))
        self.assertFalse(lets_in(policies, 6379, STRANGER, to=JOB), "nobody has anything to ask a job")

    def test_what_pods_may_reach(self):
        for name in ("network-closed", "network-standalone"):
            for policy in of_kind(case(name), "NetworkPolicy"):
                self.assertEqual(policy["spec"]["policyTypes"], ["Ingress", "Egress"])
                dns, *others = policy["spec"]["egress"]
                asked = {(each["port"], each["protocol"]) for each in dns["ports"]}
                self.assertEqual(asked, {(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")})
                for rule in others:
                    self.assertEqual(rule["to"], [{"podSelector": {"matchLabels": SERVER}}])
                    self.assertLessEqual({each["port"] for each in rule["ports"]}, {6379, 16379})
