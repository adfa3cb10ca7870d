"""Renders and validates the files of `deploy/`; `.ci/run deploy` runs it.

    PYTHON .ci/deploy.py                   all checks
    PYTHON .ci/deploy.py kustomize helm    only these

PYTHON has `.ci/deploy-requirements.txt` installed.

`kustomize` Base, components and overlays render; the objects fit the schemas of Kubernetes.
`regions`   The NetworkPolicies of the overlays let exactly those through that they are meant for.
`helm`      The chart lints, refuses wrong values, and renders several sets of values to valid objects; with
            its defaults it renders what the Kustomize base does.
`image`     hadolint accepts the Dockerfile; it compiles with the compiler that CONTRIBUTING.md names.
`compose`   The Compose file fits the specification; a misspelt key would not.
`systemd`   systemd accepts the unit, and rates its exposure as OK.
"""

import copy
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
# The oldest version for which schemas exist here, and the newest.
KUBERNETES = ("1.33", "1.37")
# Kinds of operators, whose schemas Kubernetes does not have.
FOREIGN = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}
# In the form of a secret, but of no cluster.
SECRET = "zcs1_" + "A" * 48

errors = []


def fail(check, message):
    errors.append(f"{check}: {message}")


def run(*command, **options):
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, **options
    )


def objects(text):
    return [one for one in yaml.safe_load_all(text) if one]


def name_of(one):
    return f"{one['kind']} {one['metadata']['name']}"


def validate(check, what, rendered):
    native = [one for one in rendered if one["apiVersion"] not in FOREIGN]
    text = yaml.safe_dump_all(native)
    for version in KUBERNETES:
        result = run(BIN / "kubernetes-validate", "--strict", "-k", version, "-", input=text)
        if result.returncode:
            fail(check, f"{what}, Kubernetes {version}:\n{result.stdout}{result.stderr}")


def kustomize(folder):
    """Renders a folder of a copy in which the secret is present."""
    result = run(BIN / "kubectl", "kustomize", folder, env={**os.environ, "KUBECONFIG": os.devnull})
    if result.returncode:
        fail("kustomize", f"{folder}:\n{result.stderr}")
        return []
    return objects(result.stdout)


class Copy:
    """A copy of `deploy/kustomize`, with a secret and with overlays that exist for tests."""

    def __enter__(self):
        self.temp = tempfile.TemporaryDirectory()
        self.root = Path(self.temp.name)
        shutil.copytree(DEPLOY / "kustomize", self.root / "kustomize")
        (self.root / "kustomize/components/secret/zerocache.secret").write_text(SECRET)
        return self

    def __exit__(self, *_):
        self.temp.cleanup()

    def render(self, path):
        return kustomize(self.root / "kustomize" / path)

    def with_components(self, *components):
        folder = self.root / "kustomize/overlays/test"
        folder.mkdir(exist_ok=True)
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["../../base"],
            "components": [f"../../components/{name}" for name in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return kustomize(folder)


COMPONENTS = [
    ("secret",),
    ("tls-cert-manager",),
    ("snapshot",),
    ("monitoring",),
    ("secret", "monitoring", "snapshot"),
    ("tls-cert-manager", "monitoring", "snapshot"),
]


def check_kustomize():
    with Copy() as files:
        folders = ["base"]
        folders += [f"overlays/{path.name}" for path in (DEPLOY / "kustomize/overlays").iterdir()]
        for folder in sorted(folders):
            validate("kustomize", folder, files.render(folder))
        for components in COMPONENTS:
            rendered = files.with_components(*components)
            validate("kustomize", " and ".join(components), rendered)
            kinds = {one["kind"] for one in rendered}
            if ("StatefulSet" in kinds) != ("snapshot" in components):
                fail("kustomize", f"{components} render {sorted(kinds)}")
            grace(rendered)
        secret = [one for one in files.with_components("secret") if one["kind"] == "Secret"]
        if [one["metadata"]["name"] for one in secret] != ["zerocache"]:
            fail("kustomize", "the Secret is not the one that the pods mount")


def grace(rendered):
    """A pod must get more time than a shutdown takes."""
    for one in rendered:
        if one["kind"] in ("Deployment", "StatefulSet"):
            pod = one["spec"]["template"]["spec"]
            env = {var["name"]: var.get("value") for var in pod["containers"][0]["env"]}
            drain = int(env["ZEROCACHE_DRAIN"].removesuffix("s"))
            if pod["terminationGracePeriodSeconds"] < drain + 5:
                fail("kustomize", f"{name_of(one)} is killed while it shuts down")


def policy_of(rendered):
    return next(one for one in rendered if one["kind"] == "NetworkPolicy")


def lets_through(rules, direction, peer, port, protocol):
    """Whether rules of a NetworkPolicy admit a peer: its namespace, whether that is the policy's own, its
    labels and its address."""
    for rule in rules:
        named = {"zerocache": 6789, "heartbeats": 6789, "admin": 6790}
        ports = {
            (named.get(one["port"], one["port"]), one.get("protocol", "TCP"))
            for one in rule.get("ports", [])
        }
        if ports and (port, protocol) not in ports:
            continue
        peers = rule.get(direction)
        if peers is None or any(matches(one, peer) for one in peers):
            return True
    return False


def matches(selector, peer):
    if block := selector.get("ipBlock"):
        return ipaddress.ip_address(peer["ip"]) in ipaddress.ip_network(block["cidr"])
    if "namespaceSelector" in selector:
        labels = {"kubernetes.io/metadata.name": peer["namespace"]}
        wanted = selector["namespaceSelector"].get("matchLabels", {})
        if not wanted.items() <= labels.items():
            return False
    elif not peer["is_local"]:
        return False
    wanted = selector.get("podSelector", {}).get("matchLabels", {})
    return wanted.items() <= peer["labels"].items()


NODE = {"app.kubernetes.io/name": "zerocache"}


def check_regions():
    with Copy() as files:
        policies = {
            name: policy_of(files.render(f"overlays/{name}"))["spec"]
            for name in ("one-region", "london", "sydney", "multi-region")
        }
        monitored = policy_of(files.with_components("monitoring"))["spec"]

    def expect(what, spec, direction, wanted, protocol="TCP", port=6789, **peer):
        peer = {"namespace": "x", "is_local": False, "labels": {}, "ip": "192.0.2.1"} | peer
        rules = spec["ingress" if direction == "from" else "egress"]
        if lets_through(rules, direction, peer, port, protocol) != wanted:
            fail("regions", f"{what}: {protocol} {port} {direction} {peer} must be {wanted}")

    for name, other in (("london", "sydney"), ("sydney", "london")):
        spec = policies[name]
        for protocol in ("TCP", "UDP"):
            for direction in ("from", "to"):
                where = {"labels": NODE, "protocol": protocol}
                expect(name, spec, direction, True, namespace=f"zerocache-{other}", **where)
                expect(name, spec, direction, False, namespace="strangers", **where)
                expect(name, spec, direction, True, is_local=True, **where)
        expect(name, spec, "from", False, namespace=f"zerocache-{other}")
        expect(name, spec, "from", True, is_local=True, labels={"zerocache-client": "true"})
        expect(name, spec, "from", False, is_local=True, labels={"other": "true"})
    for direction in ("from", "to"):
        expect("multi-region", policies["multi-region"], direction, True, ip="10.64.3.2")
        expect("multi-region", policies["multi-region"], direction, False, ip="10.1.3.2")
        spec = policies["one-region"]
        expect("one-region", spec, direction, False, labels=NODE, namespace="zerocache-sydney")
    expect("multi-region", policies["multi-region"], "to", True, ip="10.65.0.9")
    expect("monitoring", monitored, "from", True, port=6790, namespace="monitoring")
    expect("monitoring", monitored, "from", False, namespace="monitoring")
    expect("monitoring", monitored, "from", False, port=6790, namespace="strangers")
    expect("one-region", policies["one-region"], "from", False, namespace="monitoring")


VALUES = [
    {"region": "london"},
    {"region": "london", "snapshot": {"enabled": True, "storageClass": "fast"}, "replicas": 5},
    {
        "region": "sydney",
        "seeds": ["zerocache-nodes.london.svc:6789", "10.0.0.7:6789"],
        "otherRegions": {"namespaces": ["london", "44"], "cidrs": ["10.64.0.0/16"]},
        "networkPolicy": {"monitoringNamespaces": ["monitoring", "on"]},
    },
    {
        "region": "eu",
        "certificates": {"secretName": "zerocache-node", "access": '[anonymous]\nrole = "none"\n'},
        "maxBytes": "512MiB",
        "extraEnv": [{"name": "ZEROCACHE_WARM_MAX", "value": "5m"}],
    },
    {
        "region": "eu",
        "secret": {"value": SECRET + "\n"},
        "image": {"repository": "r.example/z", "tag": "1", "pullPolicy": "Never", "pullSecrets": ["1"]},
        "networkPolicy": {"enabled": False},
        "nodeSelector": {"disk": "none"},
        "tolerations": [{"key": "cache", "operator": "Exists"}],
        "podAnnotations": {"a": "b"},
    },
]
WRONG_VALUES = [
    {},
    {"region": "v1"},
    {"region": ""},
    {"region": "london", "replica": 3},
    {"region": "london", "drainSeconds": -1},
    {"region": "london", "secret": {"value": "a passphrase"}},
    {"region": "london", "seeds": ["host-without-port"]},
]


def without_noise(one):
    """Labels of Helm and the namespace, which the base leaves open."""
    one = copy.deepcopy(one)
    one["metadata"].pop("namespace", None)
    one["metadata"]["labels"] = {
        key: value for key, value in one["metadata"].get("labels", {}).items() if key in NODE
    }
    return one


def check_helm():
    import helm_python

    path = DEPLOY / "helm/zerocache"
    for message in helm_python.lint(str(path), values=VALUES[0])["messages"]:
        # A recommendation, such as an icon, is no mistake.
        if message["severity"] > 1:
            fail("helm", message)
    chart = helm_python.Chart.load(str(path))

    def render(values):
        files = chart.render(values, name="cache", namespace="shop")
        notes = [text for name, text in files.items() if name.endswith("NOTES.txt")]
        if not notes or "nodes of the region" not in notes[0]:
            fail("helm", f"no notes for {values}")
        return [
            one for name, text in sorted(files.items()) if name.endswith(".yaml") for one in objects(text)
        ]

    for values in VALUES:
        chart.validate_schema(chart.merge_values(values))
        rendered = render(values)
        validate("helm", values, rendered)
        grace(rendered)
        if any(one["metadata"]["namespace"] != "shop" for one in rendered):
            fail("helm", f"{values}: an object is not in the namespace of the release")
    for values in WRONG_VALUES:
        try:
            chart.validate_schema(chart.merge_values(values))
        except helm_python.HelmError:
            continue
        fail("helm", f"{values} are accepted")
    with Copy() as files:
        base = {name_of(one): without_noise(one) for one in files.render("base")}
    default = {name_of(one): without_noise(one) for one in render(VALUES[0])}
    for name in sorted(base.keys() | default.keys()):
        if base.get(name) != default.get(name):
            fail("helm", f"{name} differs:\nbase  {base.get(name)}\nchart {default.get(name)}")
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    about = yaml.safe_load((path / "Chart.yaml").read_text())
    if about["appVersion"] != version:
        fail("helm", f"Chart.yaml is for version {about['appVersion']}, Cargo.toml says {version}")


def check_image():
    result = run(BIN / "hadolint", DEPLOY / "Dockerfile")
    if result.returncode:
        fail("image", result.stdout + result.stderr)
    text = (DEPLOY / "Dockerfile").read_text()
    for version in set(re.findall(r"FROM rust:([\d.]+)", text)):
        if version not in (ROOT / "CONTRIBUTING.md").read_text():
            fail("image", f"CONTRIBUTING.md does not name Rust {version}")


def check_compose():
    from compose_spec import PyOptions

    # Merge keys are YAML 1.1, which the specification permits and the validator does not know.
    text = (DEPLOY / "compose.yaml").read_text()
    # So are variables; their defaults are what is checked.
    composed = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    PyOptions().from_yaml(yaml.safe_dump(composed))
    composed["services"]["london"]["read_onyl"] = True
    try:
        PyOptions().from_yaml(yaml.safe_dump(composed))
    except ValueError:
        return
    fail("compose", "a misspelt key is accepted: the check checks nothing")


def check_systemd():
    text = (DEPLOY / "systemd/zerocache.service").read_text()
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "zerocache.service"
        # systemd wants the program to exist.
        unit.write_text(text.replace("/usr/local/bin/zerocache-server", "/bin/true"))
        result = run("systemd-analyze", "verify", "--man=no", unit)
        if result.returncode or result.stderr:
            fail("systemd", result.stdout + result.stderr)
        result = run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)
        if result.returncode:
            fail("systemd", result.stdout + result.stderr)


CHECKS = {
    "kustomize": check_kustomize,
    "regions": check_regions,
    "helm": check_helm,
    "image": check_image,
    "compose": check_compose,
    "systemd": check_systemd,
}

for chosen in sys.argv[1:] or CHECKS:
    CHECKS[chosen]()
for error in errors:
    print(error, file=sys.stderr)
sys.exit(1 if errors else 0)
