"""Builds the image of `deploy/Dockerfile`, and runs `deploy/compose.yaml` with it; `.ci/run image` runs it.

    python3 .ci/image.py BINARY FOLDER

BINARY is `zerocache` of the profile `dist`. FOLDER is where everything is kept that this makes; it
is removed at the end. Needs root, and Debian's docker.io and docker-compose. Starts a Docker daemon of its own
and ends it. `.ci/run` runs this in namespaces of its own: a daemon changes the firewall and makes interfaces,
and none of it is to be left on the machine.

No image can be pulled where this runs. Two images of this machine's files stand for those that the Dockerfile
names: one with the C library for the base, and one for the compiler, whose `cargo` checks what it is asked for
and copies BINARY. So the Dockerfile and the Compose file are those that users get; what is not tested
here is the compilation inside a container.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKER, COMPOSE = "/usr/bin/docker", "/usr/bin/docker-compose"
IMAGE = "zerocache-ci"
PROJECT = "zerocache-ci"
# Node and tool in one binary, and the libraries that stand for the base: 15 MB, of which those are 3.
BYTES_MAX = 17_000_000
READY_WITHIN_S = 60

BINARY, FOLDER = (Path(argument).resolve() for argument in sys.argv[1:3])
ENV = {
    "PATH": os.environ["PATH"],
    "HOME": str(FOLDER),
    "DOCKER_HOST": f"unix://{FOLDER}/docker.sock",
    "DOCKER_BUILDKIT": "1",
    "ZEROCACHE_IMAGE": IMAGE,
    "ZEROCACHE_SECRET": str(FOLDER / "zerocache.secret"),
}


def run(*command, timeout=120, **options):
    options = {"capture_output": True, "text": True} | options
    command = [str(part) for part in command]
    result = subprocess.run(command, env=ENV, timeout=timeout, **options)
    if result.returncode:
        sys.exit(f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def docker(*arguments, **options):
    return run(DOCKER, *arguments, **options)


def compose(*arguments, **options):
    return run(COMPOSE, "-p", PROJECT, "-f", ROOT / "deploy/compose.yaml", *arguments, **options)


def skip(reason):
    """Ends because of what this machine lacks: a failure in CI."""
    if os.environ.get("CI") == "true":
        sys.exit(f"image: {reason}")
    print(f"skipped: {reason}")
    sys.exit(0)


def check(holds, what):
    if not holds:
        sys.exit(f"image: {what}")
    print(f"    {what}", flush=True)


@contextlib.contextmanager
def daemon():
    """A Docker daemon with a folder and a socket of its own."""
    command = ["dockerd", "--host", ENV["DOCKER_HOST"], "--data-root", FOLDER / "docker"]
    command += ["--exec-root", FOLDER / "docker-run", "--pidfile", FOLDER / "docker.pid"]
    with open(FOLDER / "dockerd.log", "w") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while subprocess.run([DOCKER, "info"], env=ENV, capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > end:
                lines = (FOLDER / "dockerd.log").read_text().splitlines()
                skip("dockerd does not start:\n" + "\n".join(lines[-15:]))
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def copy_libraries(root, *programs):
    """Copies the shared libraries of programs, and the loader."""
    for program in programs:
        for library in re.findall(r"(/\S+) \(0x", run("ldd", program)):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


def install(root, program, name):
    shutil.copy(program, root / name)
    copy_libraries(root, program)


CARGO = """#!/bin/sh
# Stands for cargo: checks what it is asked for, and copies what was built outside.
set -e
test "$*" = "build --profile dist --locked -p zerocache-cli"
test -f Cargo.lock
grep -q members Cargo.toml
echo "cargo compiles $(grep -c '' zerocache-cli/src/main.rs) lines of main.rs"
mkdir -p target/dist
cp /built/zerocache target/dist/
"""


def make_compiler():
    """The image that stands for that of Rust: a shell, a few tools, and `cargo`."""
    root = FOLDER / "rust"
    for name in ("bin", "usr/local/bin", "built", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("sh", "cat", "cp", "find", "grep", "mkdir", "touch"):
        install(root, shutil.which(name), f"bin/{name}")
    (root / "usr/local/bin/cargo").write_text(CARGO)
    (root / "usr/local/bin/cargo").chmod(0o755)
    shutil.copy(BINARY, root / "built")
    return root


def make_base(name):
    """The image that stands for the base: the C library, and the user 65532."""
    root = FOLDER / name
    for name in ("etc", "tmp", "home/nonroot"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
    (root / "etc/group").write_text("nonroot:x:65532:\n")
    copy_libraries(root, BINARY)
    return root


def import_image(root, name):
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        docker("import", "-", name, stdin=tar.stdout)
    shutil.rmtree(root)


def copy_of_sources():
    """The files that git knows, as they are now: changing them changes nothing here."""
    folder = FOLDER / "context"
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder


def build_image():
    text = (ROOT / "deploy/Dockerfile").read_text()
    names = re.findall(r"^FROM (\S+)", text, re.M)
    import_image(make_compiler(), next(name for name in names if name.startswith("rust:")))
    import_image(make_base("base"), names[-1])
    folder = copy_of_sources()

    def build():
        command = [DOCKER, "build", "--progress=plain", "--network=none", "-f", "deploy/Dockerfile"]
        command += ["--build-arg", "REVISION=abc123", "-t", IMAGE, "."]
        command = [str(part) for part in command]
        result = subprocess.run(
            command, env=ENV, cwd=folder, timeout=240, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        if result.returncode:
            sys.exit(f"docker build: exit code {result.returncode}\n{result.stdout}")
        return result.stdout

    lines = (folder / "zerocache-cli/src/main.rs").read_text().count("\n")
    compiled = re.findall(r"cargo compiles (\d+) lines", build())
    check(compiled == ["1", str(lines)], "dependencies are built without the code, then the code")
    again = build()
    check("cargo compiles" not in again, "nothing is built again without a change")
    with open(folder / "zerocache-cli/src/main.rs", "a") as main:
        main.write("// Changed.\n")
    compiled = re.findall(r"cargo compiles (\d+) lines", build())
    check(compiled == [str(lines + 1)], "a change of the code leaves the dependencies as they are")


def inspect_image():
    about = json.loads(docker("image", "inspect", IMAGE))[0]
    config = about["Config"]
    check(config["User"] == "65532:65532", "the image has the user 65532")
    check(config["StopSignal"] == "SIGTERM", "the image names SIGTERM")
    labels = config["Labels"]
    check(labels["org.opencontainers.image.revision"] == "abc123", "the image names the revision")
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    check(labels["org.opencontainers.image.version"] == version, f"the image has version {version}")
    size = about["Size"]
    check(size <= BYTES_MAX, f"the image has {size / 1e6:.1f} MB, at most {BYTES_MAX / 1e6:.0f}")
    said = docker("run", "--rm", "--network=none", IMAGE, "--version")
    check(said.split() == ["zerocache-server", version], "the node runs and says its version")
    said = tool("--version", secret=False)
    check(said.split() == ["zerocache", version], "the tool runs and says its version")


def tool(*arguments, secret=True):
    """Runs the tool in a container of its own."""
    command = ["run", "--rm", "--read-only", "--cap-drop=ALL", "--network=none"]
    if secret:
        command += ["--volume", f"{ENV['ZEROCACHE_SECRET']}:/run/secret:ro"]
        command += ["--env", "ZEROCACHE_SECRET_FILE=/run/secret"]
    return docker(*command, "--entrypoint", "zerocache", IMAGE, *arguments)


def make_secret():
    """The secret of the cluster, made as the Compose file says."""
    path = Path(ENV["ZEROCACHE_SECRET"])
    path.touch(mode=0o600)
    path.write_text(tool("secret", secret=False))
    os.chown(path, 65532, 65532)


class Client:
    """curl in a container beside the nodes, which trusts the CA of the secret and has a token."""

    def __init__(self):
        root = make_base("client")
        (root / "bin").mkdir()
        install(root, shutil.which("curl"), "bin/curl")
        (root / "ca.pem").write_text(tool("cert", "ca"))
        token = tool("token", "create", "--name", "ci", "--role", "admin", "--for", "1h").strip()
        (root / "authorization").write_text(f"Authorization: Bearer {token}")
        import_image(root, "zerocache-ci-client")

    def __call__(self, address, path, *arguments):
        command = ["run", "--rm", f"--network={PROJECT}_default", "zerocache-ci-client", "/bin/curl"]
        command += ["--silent", "--show-error", "--fail", "--max-time", "10", "--cacert", "/ca.pem"]
        return docker(*command, "-H", "@/authorization", *arguments, f"https://{address}:6789{path}")


def containers(service):
    return compose("ps", "-q", service).split()


def address_of(container):
    networks = json.loads(docker("inspect", container))[0]["NetworkSettings"]["Networks"]
    return networks[f"{PROJECT}_default"]["IPAddress"]


def state_of(container):
    return json.loads(docker("inspect", container))[0]["State"]


def until(what, probe):
    end = time.monotonic() + READY_WITHIN_S
    while not probe():
        if time.monotonic() > end:
            sys.exit(f"image: awaited in vain: {what}\n{compose('logs', '--tail', '30')}")
        time.sleep(0.5)
    print(f"    {what}", flush=True)


def run_cluster():
    compose("up", "--detach", "--no-build", "--scale", "london=3")
    nodes = {container: address_of(container) for container in containers("london")}
    check(len(nodes) == 3, "three nodes of london run")
    (sydney,) = containers("sydney")
    nodes[sydney] = address_of(sydney)
    client = Client()

    def knows_all(address):
        view = json.loads(client(address, "/v1/cluster"))["nodes"]
        in_sync = {node["address"] for node in view if node["state"] == "in-sync"}
        return in_sync == set(nodes.values())

    for container, address in nodes.items():
        # A container that ended is not awaited.
        check(state_of(container)["Running"], f"{address} runs")
        until(f"{address} knows all nodes", lambda address=address: knows_all(address))
        until(f"{address} is healthy", lambda one=container: is_healthy(one))
    london = next(iter(nodes.values()))
    written = client(london, "/v1/entries/greeting?ttl=60&ack=all", "-X", "PUT", "--data", "hello")
    check(json.loads(written)["replicas"] >= 3, "a write in london reaches the others")
    for address in nodes.values():
        check(client(address, "/v1/entries/greeting") == "hello", f"{address} has the value")
    host, port = compose("port", "london", "6789").strip().split(":")
    pong = run("curl", "--silent", "--insecure", "--max-time", "10", f"https://{host}:{port}/ping")
    check(pong.strip() == "pong", "a published port answers")
    began = time.monotonic()
    compose("stop")
    took = time.monotonic() - began
    check(took < 15, f"stopping took {took:.1f} s, less than the grace period")
    for container, address in nodes.items():
        state = state_of(container)
        check(state["ExitCode"] == 0 and not state["OOMKilled"], f"{address} shut down in order")


def is_healthy(container):
    return state_of(container)["Health"]["Status"] == "healthy"


def main():
    if os.geteuid() != 0:
        skip("root can start a container engine, others cannot")
    # What a run left that was killed.
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    # Down in a new network namespace; the published port is on it.
    run("ip", "link", "set", "lo", "up")
    try:
        with daemon():
            build_image()
            inspect_image()
            make_secret()
            try:
                run_cluster()
            finally:
                compose("down", "--volumes", "--timeout", "5")
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
