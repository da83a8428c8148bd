"""What schemathesis has to know of nodes to say more than "400": lines of JSON, and which parameters exclude others.

Only requests that are meant to be right are changed; those that are meant to be wrong stay as they are.
"""

import json
import os
import random

import requests
import schemathesis

# One thread sends all cases, so that a seed repeats a run.
choices = random.Random(int(os.environ["KV_SEED"]))
own_keys = []


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    if not isinstance(value, list):
        return json.dumps(value).encode()
    return b"".join(json.dumps(item).encode() + b"\n" for item in value)


@schemathesis.deserializer("application/x-ndjson")
def items(_context, response):
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.hook
def before_call(_context, case, **_kwargs):
    if case.meta is None or case.meta.generation.mode.is_negative:
        return
    query, headers = case.query or {}, case.headers or {}
    keep_one(headers, "If-Match", "If-None-Match")
    if case.operation.path.startswith("/kv") and case.method == "POST":
        keep_one(query, "incr", "ttl", "persist")
    if case.operation.path == "/kv" and case.method in ("GET", "HEAD") and "key" in query:
        is_scan = choices.random() < 0.5
        for name in list(query):
            if (name == "key") == is_scan:
                del query[name]
    if case.operation.path == "/log" and "Kv-Node-Id" not in headers:
        query.pop("wait_ms", None)
    # A wait that ends soon is as good as a long one.
    for place, name in ((headers, "Kv-Wait-Ms"), (query, "wait_ms")):
        if str(place.get(name, "")).isdigit():
            place[name] = str(int(place[name]) % 50)
    for place in (query, case.path_parameters or {}):
        if "key" in place and choices.random() < 0.7:
            place["key"] = choices.choice(keys_of_node(case))


def keep_one(place, *names):
    """Leaves one of the parameters that exclude each other."""
    there = [name for name in names if name in place]
    for name in choices.sample(there, max(len(there) - 1, 0)):
        del place[name]


def keys_of_node(case):
    """Some keys of the shard that the node belongs to, so that what one request stores another one finds."""
    if not own_keys:
        for number in range(64):
            key = f"api:{number}"
            route = requests.get(case.operation.base_url.rstrip("/") + "/route", params={"key": key}, timeout=10)
            if route.json()["this_node"]:
                own_keys.append(key)
    return own_keys[:8]
