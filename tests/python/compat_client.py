"""Drives the unmodified Python client of zerocache 0.0.2 against nodes of ours.

Usage: compat_client.py REGION NODE...   with NODE as REGION=ADDRESS:PORT

Runs in a network namespace of its own, started by tests/tests/python_compat.rs. Prints one line per
check and exits 0 if all hold; the first that does not is a traceback and exit code 1.
"""

import sys
import time
from urllib.parse import quote

import requests
import zerocache

# Longer than anything takes on a busy machine; nothing is asserted about being this slow.
PATIENCE_S = 20.0
POLL_S = 0.05

KEYS = [
    "plain",
    "with/several/slashes",
    "ends-in-slash/",
    "ключ",
    "naïve/キー/🗝",
    "with space",
    "a+b&c=d:e,f;g",
    "k" * 200,
]


def eventually(what, condition):
    """Waits until condition() is true and returns how long that took, in seconds."""
    start = time.monotonic()
    while not condition():
        passed = time.monotonic() - start
        assert passed < PATIENCE_S, f"not within {PATIENCE_S} s: {what}"
        time.sleep(POLL_S)
    return time.monotonic() - start


def says(check):
    print(f"ok: {check}", flush=True)


class Node:
    """One node, asked directly, to see what the client does not show."""

    def __init__(self, text):
        self.region, self.place = text.split("=")

    def compat(self, key):
        url = f"http://{self.place}/{self.region}/{quote(key, safe='/')}"
        return requests.get(url, timeout=5)

    def holds(self, key, value):
        response = self.compat(key)
        return response.status_code == 200 and response.content == value

    def lacks(self, key):
        return self.compat(key).status_code == 404

    def native(self, key):
        return requests.get(f"http://{self.place}/v1/entries/{quote(key, safe='')}", timeout=5)

    def remaining_ms(self, key):
        response = self.native(key)
        assert response.status_code == 200, (self.place, key, response.status_code)
        lifetimes = [value for name, value in response.headers.items() if "ttl" in name.lower()]
        assert len(lifetimes) == 1, (self.place, dict(response.headers))
        return int(lifetimes[0])


def check_found(client, nodes):
    """The client sees every node, in its region, at its address."""
    expected = sorted((node.region, node.place) for node in nodes)

    def seen():
        return sorted(
            (region, client.service_base_url(service).removeprefix("http://"))
            for region, services in list(client.services.items())
            for service in list(services)
        )

    eventually(f"the client finds {expected}", lambda: seen() == expected)
    says(f"found {len(expected)} nodes")


def check_round_trips(client, nodes):
    """What is put is got, byte for byte, here and on every node of every region."""
    assert client.get("never-put") == (False, None)
    for number, key in enumerate(KEYS):
        value = bytes(range(256)) + str(number).encode()
        assert client.put(key, value, 300) is True
        for node in nodes:
            eventually(f"{key!r} on {node.place}", lambda: node.holds(key, value))
        assert client.get(key) == (True, value), key
        assert client.cache_hit, key
    for key in ("with/several/slashes", "ключ", "naïve/キー/🗝"):
        for node in nodes:
            assert node.native(key).status_code == 200, (node.place, key)
    says(f"{len(KEYS)} keys went round")

    assert client.put("empty", b"", 300) is True
    for node in nodes:
        eventually(f"an empty value on {node.place}", lambda: node.holds("empty", b""))
    assert client.get("empty") == (True, b"")
    says("an empty value is a hit")


def check_delete(client, nodes):
    """What is deleted is gone everywhere; so is what was never there."""
    for key in KEYS:
        assert client.delete(key) is True
        for node in nodes:
            eventually(f"{key!r} gone from {node.place}", lambda: node.lacks(key))
        assert client.get(key) == (False, None), key
    assert client.delete("never-put") is True
    says(f"{len(KEYS)} keys deleted")


def check_expiry(client, nodes):
    """The expiry ends an entry on every node at the same time, and is clamped as in the original."""
    seconds = 3
    start = time.monotonic()
    assert client.put("short", b"life", seconds) is True
    for node in nodes:
        eventually(f"'short' on {node.place}", lambda: node.holds("short", b"life"))
    assert time.monotonic() - start < seconds, "too slow here to see it alive"
    for node in nodes:
        eventually(f"'short' expired on {node.place}", lambda: node.lacks("short"))
        passed = time.monotonic() - start
        assert passed >= seconds, f"{node.place} dropped it after {passed} s"
    assert time.monotonic() - start < seconds + 1.5, "expired late"
    assert client.get("short") == (False, None)
    says(f"{seconds} s end at once on every node")

    for given, most_ms in ((42, 42_000), ("soon", 3_600_000), (10**12, 99_999_999_000)):
        key = f"expiry-{given}"
        assert client.put(key, b"x", given) is True
        for node in nodes:
            eventually(f"{key} on {node.place}", lambda: node.holds(key, b"x"))
            left = node.remaining_ms(key)
            assert most_ms - PATIENCE_S * 1000 < left <= most_ms, (node.place, given, left)
    for given in (0, -5):
        key = f"expiry-{given}"
        start = time.monotonic()
        assert client.put(key, b"x", given) is True
        for node in nodes:
            eventually(f"{key} gone from {node.place}", lambda: node.lacks(key))
        assert time.monotonic() - start < 3.0, f"expiry {given} is not clamped to 1 s"
    says("expiry is clamped")


def check_plain_paths(nodes):
    """The paths beside the entries."""
    for node in nodes:
        pong = requests.get(f"http://{node.place}/ping", timeout=0.5)
        assert (pong.status_code, pong.text) == (200, "pong")
        for path in ("local_cache_info", "remote_cache_info"):
            info = requests.get(f"http://{node.place}/{path}", timeout=5).json()
            assert {"hits", "misses", "maxsize", "currsize"} <= info.keys(), info
    says("ping and cache info answer")


def main():
    region, nodes = sys.argv[1], [Node(text) for text in sys.argv[2:]]
    client = zerocache.ZerocacheClient(region)
    check_found(client, nodes)
    check_round_trips(client, nodes)
    check_delete(client, nodes)
    check_expiry(client, nodes)
    check_plain_paths(nodes)
    client.zeroconf.close()
    says("all")


if __name__ == "__main__":
    main()
