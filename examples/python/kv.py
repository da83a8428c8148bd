#!/usr/bin/env python3
"""A client of the key-value store in one file: Python 3.9 or newer, standard library only.

    from kv import Client
    with Client(["localhost:8080"]) as kv:
        kv.put("user:1", "Ada")
        kv.get("user:1")                  # b'Ada'

It loads the shard map from any node, computes slots itself, sends writes to primaries and spreads reads over primaries
and replicas, so that nobody sees less than he wrote or read before. What it does follows docs/protocol.md, which says why.

A `Client` may be shared by threads; each request has a connection of its own while it runs. A `Watch` belongs to one thread.
After a fork the child may go on with the `Client`, as a client of its own; a `Watch` stays with the parent.
Errors tell what became of a write: `NotApplied` (and never will be) or `Unknown` (may have been applied, or may yet be).
"""
from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import copy
import dataclasses
import functools
import heapq
import http.client
import io
import json
import os
import queue
import random
import re
import socket
import ssl
import sys
import threading
import time
import uuid
import weakref
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple, Union
from urllib.parse import quote

SLOTS = 16_384
MAX_KEY_BYTES = 511
MAX_BATCH_OPS = 1_000
MAX_HOPS = 3
MAX_ANSWER_BYTES = 64 << 20
NDJSON = "application/x-ndjson"
# The largest value, 16 MiB, has up to six times as many bytes as text of JSON.
MAX_EVENT_BYTES = 100 << 20
# Nodes close what is idle for 75 s; a client lets go first.
IDLE_SECONDS = 20.0
# Nodes forget request ids after ten idle minutes: no repeat may come that late.
MAX_TIMEOUT = 480.0
# Every 5 s a watch tells its position: one that is silent for so long is broken.
WATCH_SILENCE = 12.0
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5

Bytes = Union[bytes, str]

# --- slots ------------------------------------------------------------------------------------------------------------

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590"
    "e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb4"
    "5931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45"
    "cb3a8f95160428afd7fbcabb4b407e")
_MASK = (1 << 64) - 1
_P32_1, _P32_2, _P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_P64_1, _P64_2, _P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P64_4, _P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def _le(data: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(data[at:at + size], "little")


def _fold(a: int, b: int) -> int:
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def _avalanche(h: int, multiplier: int = 0x165667919E3779F9, first: int = 37) -> int:
    h = ((h ^ (h >> first)) * multiplier) & _MASK
    return h ^ (h >> 32)


def _avalanche64(h: int) -> int:
    return _avalanche(((h ^ (h >> 33)) * _P64_2) & _MASK, _P64_3, 29)


def _mix16(data: bytes, at: int, secret_at: int) -> int:
    return _fold(_le(data, at) ^ _le(_SECRET, secret_at), _le(data, at + 8) ^ _le(_SECRET, secret_at + 8))


def xxh3_64(data: bytes) -> int:
    """XXH3, 64 bits, seed 0, of at most 1,024 bytes: all that a key can be is one block of its long form."""
    n = len(data)
    if n == 0:
        return _avalanche64(_le(_SECRET, 56) ^ _le(_SECRET, 64))
    if n <= 3:
        combined = data[0] << 16 | data[n >> 1] << 24 | data[n - 1] | n << 8
        return _avalanche64(combined ^ (_le(_SECRET, 0, 4) ^ _le(_SECRET, 4, 4)))
    if n <= 8:
        h = (_le(data, n - 4, 4) + (_le(data, 0, 4) << 32)) ^ (_le(_SECRET, 8) ^ _le(_SECRET, 16))
        h ^= ((h << 49 | h >> 15) ^ (h << 24 | h >> 40)) & _MASK
        h = (h * 0x9FB21C651E98DF25) & _MASK
        h = ((h ^ ((h >> 35) + n)) * 0x9FB21C651E98DF25) & _MASK
        return h ^ (h >> 28)
    if n <= 16:
        low = _le(data, 0) ^ (_le(_SECRET, 24) ^ _le(_SECRET, 32))
        high = _le(data, n - 8) ^ (_le(_SECRET, 40) ^ _le(_SECRET, 48))
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return _avalanche((n + swapped + high + _fold(low, high)) & _MASK)
    if n <= 128:
        acc = n * _P64_1
        for i in range((n - 1) // 32 + 1):
            acc += _mix16(data, 16 * i, 32 * i) + _mix16(data, n - 16 * (i + 1), 32 * i + 16)
        return _avalanche(acc & _MASK)
    if n <= 240:
        acc = n * _P64_1 + sum(_mix16(data, 16 * i, 16 * i) for i in range(8))
        acc = _avalanche(acc & _MASK)
        acc += sum(_mix16(data, 16 * i, 16 * (i - 8) + 3) for i in range(8, n // 16)) + _mix16(data, n - 16, 136 - 17)
        return _avalanche(acc & _MASK)
    if n > 1024:
        raise ValueError("no key is that long")
    return _xxh3_long(data)


def _xxh3_long(data: bytes) -> int:
    n = len(data)
    acc = [_P32_3, _P64_1, _P64_2, _P64_3, _P64_4, _P32_2, _P64_5, _P32_1]
    stripes = [(64 * i, 8 * i) for i in range((n - 1) // 64)] + [(n - 64, 192 - 64 - 7)]
    for at, secret_at in stripes:
        for lane in range(8):
            value = _le(data, at + 8 * lane)
            keyed = value ^ _le(_SECRET, secret_at + 8 * lane)
            acc[lane ^ 1] = (acc[lane ^ 1] + value) & _MASK
            acc[lane] = (acc[lane] + (keyed & 0xFFFFFFFF) * (keyed >> 32)) & _MASK
    h = n * _P64_1
    for i in range(4):
        h += _fold(acc[2 * i] ^ _le(_SECRET, 11 + 16 * i), acc[2 * i + 1] ^ _le(_SECRET, 11 + 16 * i + 8))
    return _avalanche(h & _MASK)


def hash_tag(key: bytes) -> bytes:
    """What is hashed: the bytes between the first { and the first } behind it, if there are any; else all."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return key[start + 1:end] if end > start + 1 else key


def slot_of(key: bytes) -> int:
    return xxh3_64(hash_tag(key)) % SLOTS


# --- words of the protocol --------------------------------------------------------------------------------------------

class Position(NamedTuple):
    """A place in a shard's log: ordered by epoch, then seq."""
    epoch: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Position:
        epoch, seq = text.strip('"').split(".")
        return cls(int(epoch), int(seq))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"


class KvError(Exception):
    """Base of all errors. `code` is the protocol's, `position` the node's own or the current entry's, where it says one."""

    def __init__(self, message: str, code: str = "", node: str = "", position: Optional[Position] = None) -> None:
        super().__init__(f"{code + ': ' if code else ''}{message}{' (at ' + node + ')' if node else ''}")
        self.code, self.node, self.position = code, node, position


class NotApplied(KvError):
    """It was not done and will not be. Also every failure of a read."""


class Unknown(KvError):
    """The write was applied, or may yet be. Read, then decide anew."""


class Conflict(NotApplied):
    """A condition did not hold. `position` is the current entry's; None if there is none."""


class NotFound(NotApplied):
    """There is no such key, and the op needs one."""


class Unavailable(NotApplied):
    """No node answered in time. Later it may."""


class Denied(NotApplied):
    """No rights: the token is missing, unknown or expired, or it lacks a scope or the key's prefix."""


class PositionLost(NotApplied):
    """What this session had seen of a shard is gone for good. The session has dropped it; told once."""


class Truncated(NotApplied):
    """The log no longer has what a watch would tell next: scan, then watch from now on."""


_DENIED = {code: Denied for code in ("unauthorized", "forbidden", "forbidden_scope", "forbidden_key")}


class ManyFailed(KvError):
    """Some of many writes failed: `errors` by key. `done` has the positions of the others."""

    def __init__(self, errors: Dict[bytes, KvError], done: Dict[bytes, Position]) -> None:
        super().__init__(f"{len(errors)} of {len(errors) + len(done)} writes failed, the first: {next(iter(errors.values()))}")
        self.errors, self.done = errors, done


class Entry(NamedTuple):
    key: bytes
    value: Optional[bytes]
    position: Position
    ttl_ms: Optional[int]


class Change(NamedTuple):
    """One record of a shard's log: `kind` is put, delete or expire."""
    shard: int
    position: Position
    kind: str
    key: bytes
    value: Optional[bytes]
    expires_at_ms: Optional[int]
    by_expiry: bool
    time_ms: int


class Shard(NamedTuple):
    name: str
    idx: int
    nodes: Tuple[str, ...]  # the primary first


class ShardMap:
    """Slots -> shards -> addresses, at one version."""

    def __init__(self, text: bytes) -> None:
        raw = json.loads(text)
        self.version, self.identity = int(raw["version"]), str(raw["identity"])
        self.shards: List[Shard] = []
        self.nodes: Dict[str, Shard] = {}
        self.owner: List[Optional[Shard]] = [None] * SLOTS
        for one in raw["shards"]:
            nodes = (one["primary"]["address"], *(node["address"] for node in one["replicas"]))
            shard = Shard(one["name"], int(one["idx"]), nodes)
            twice = [node for at, node in enumerate(nodes) if node in nodes[:at] or node in self.nodes]
            if twice:
                raise ValueError(f"the map has {twice[0]} twice")
            self.nodes.update((node, shard) for node in nodes)
            self.shards.append(shard)
            for part in one["slots"]:
                first, _, last = part.partition("-")
                for slot in range(int(first), int(last or first) + 1):
                    if self.owner[slot] is not None:
                        raise ValueError(f"slot {slot} belongs to two shards")
                    self.owner[slot] = shard
        if None in self.owner:
            raise ValueError("the map leaves slots out")

    def shard_of(self, key: bytes) -> Shard:
        shard = self.owner[slot_of(key)]
        assert shard is not None
        return shard


class Session:
    """What one user has seen: a position per shard. Never goes back. Thread safe."""

    def __init__(self, positions: Optional[Dict[int, Position]] = None) -> None:
        self._seen: Dict[int, Position] = dict(positions or {})
        self._lock = threading.Lock()

    def position(self, idx: int) -> Optional[Position]:
        return self._seen.get(idx)

    def advance(self, idx: int, position: Position) -> None:
        with self._lock:
            self._seen[idx] = max(position, self._seen.get(idx, position))

    def forget(self, idx: int, lost: Position) -> bool:
        """Drops a position that will never come; whether it was still there."""
        with self._lock:
            return self._seen.get(idx) == lost and self._seen.pop(idx) is not None

    def token(self) -> str:
        """The session as text, the same as the other clients': for a cookie or a header."""
        with self._lock:
            return "kv1" + "".join(f"_{idx}.{at}" for idx, at in sorted(self._seen.items()) if at.seq)

    @classmethod
    def from_token(cls, token: str) -> Session:
        stamp, *parts = token.split("_")
        if stamp != "kv1":
            raise ValueError("a session's token begins with kv1")
        split = [part.split(".", 1) for part in parts]
        return cls({int(idx): Position.parse(at) for idx, at in split})


# --- one request ------------------------------------------------------------------------------------------------------

@dataclasses.dataclass
class Result:
    """What a node said of one op, by status and headers or in a line of a batch. `etag` is the entry's position."""
    status: int
    applied: Optional[str] = None
    position: Optional[Position] = None
    etag: Optional[Position] = None
    ttl_ms: Optional[int] = None
    value: bytes = b""
    error: str = ""
    message: str = ""
    target: str = ""
    shard: str = ""


@dataclasses.dataclass
class _Op:
    """One op and how far it has come."""
    action: str
    shard: Callable[[ShardMap], Shard]
    method: str = "GET"
    path: str = ""
    line: Dict[str, Any] = dataclasses.field(default_factory=dict)
    headers: Dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    is_write: bool = False
    primary_only: bool = False
    session: Optional[Session] = None
    until: float = 0.0
    target: str = ""
    asked: Set[str] = dataclasses.field(default_factory=set)
    asked_for: Optional[Position] = None
    hops: int = 0
    alone: bool = False
    unknown: bool = False
    last: str = "nobody was asked"


class _NotSent(Exception):
    """The request did not leave: no connection."""


class _Broken(Exception):
    """The connection failed after the request may have left."""


class _TooLarge(_Broken):
    """The answer is larger than this client holds at once."""


class _Timed(io.RawIOBase):
    """What comes over a connection: each piece within `timeout`, and all of it by `until`."""

    def __init__(self, sock: socket.socket, timeout: float, until: float) -> None:
        self._sock, self._timeout, self._until = sock, timeout, until
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer came too slowly")
        self._sock.settimeout(min(self._timeout, left))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that does not come in drops for ever, head and body."""

    def __init__(self, sock: socket.socket, *, timeout: float, until: float, **given: Any) -> None:
        super().__init__(sock, **given)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock, timeout, until))


def _raw(data: Bytes) -> bytes:
    # Of a number bytes() would make as many zero bytes.
    return data.encode() if isinstance(data, str) else bytes(memoryview(data))


def _key(key: Bytes) -> bytes:
    raw = _raw(key)
    if not 1 <= len(raw) <= MAX_KEY_BYTES:
        raise NotApplied(f"a key has 1 to {MAX_KEY_BYTES} bytes, this one {len(raw)}", "key_too_long" if raw else "key_empty")
    return raw


def _path(key: bytes, query: str = "") -> str:
    # URL parsers remove these segments, also when they are escaped.
    dots = any(part in (b".", b"..") for part in key.split(b"/"))
    escaped = quote(key, safe="/-._~")
    path = f"/kv?key={escaped}" if dots else f"/kv/{escaped}"
    return path + (("&" if dots else "?") + query if query else "")


def _field(name: str, data: bytes) -> Dict[str, str]:
    """Bytes in a line of a batch: text where that is short, else base64."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {name: text} if text.isprintable() else {name + "_b64": base64.b64encode(data).decode()}


def _lines(ops: Iterable[Dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(op, ensure_ascii=False) for op in ops).encode()


def _bytes_of(line: Dict[str, Any], name: str) -> Optional[bytes]:
    if name in line:
        return str(line[name]).encode()
    return base64.b64decode(line[name + "_b64"]) if name + "_b64" in line else None


def _position_of(text: Optional[str]) -> Optional[Position]:
    return Position.parse(text) if text else None


def _result_of_line(line: Dict[str, Any]) -> Result:
    return Result(line["status"], line.get("applied"), _position_of(line.get("position")), _position_of(line.get("etag")),
                   line.get("ttl_ms"), _bytes_of(line, "value") or b"", line.get("error", ""), line.get("message", ""),
                   line.get("target", ""))


def _whole(result: Result, action: str) -> Result:
    """The result, if it says what every node says of a success; another program may listen where a node was."""
    if 200 <= result.status < 300:
        if action == "get" and result.etag is None:
            raise ValueError("a value without its version")
        if action not in ("get", "scan", "atomic") and result.position is None:
            raise ValueError("a write without its position")
    return result


def tls(ca: str, cert: Optional[str] = None, key: Optional[str] = None) -> ssl.SSLContext:
    """For `Client(context=...)`: trusts the authorities in a PEM file, and shows a certificate where one is given."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert:
        context.load_cert_chain(cert, key)
    return context


class _Wire:
    """Connections to nodes. No routing and no retry; the only place that knows sockets, TLS and the token."""

    def __init__(self, token: Optional[str], context: Optional[ssl.SSLContext]) -> None:
        self.scheme = "https://" if context else "http://"
        self._token, self._context = token, context
        self._idle: Dict[str, Deque[Tuple[float, http.client.HTTPConnection]]] = {}
        self._lock = threading.Lock()

    def open(self, node: str, timeout: float) -> http.client.HTTPConnection:
        """A connection that has not been used yet."""
        host, _, port = node.rpartition(":")
        host = host.strip("[]")
        made = (http.client.HTTPSConnection(host, int(port), timeout=timeout, context=self._context) if self._context
                else http.client.HTTPConnection(host, int(port), timeout=timeout))
        try:
            made.connect()
        except (OSError, http.client.HTTPException) as error:
            raise _NotSent(str(error)) from error
        return made

    def headers(self, more: Dict[str, str]) -> Dict[str, str]:
        return {**({"Authorization": f"Bearer {self._token}"} if self._token else {}), **more}

    def _take(self, node: str, timeout: float) -> http.client.HTTPConnection:
        with self._lock:
            idle = self._idle.get(node)
            while idle:
                since, connection = idle.pop()
                if time.monotonic() - since < IDLE_SECONDS and connection.sock is not None:
                    connection.sock.settimeout(timeout)
                    return connection
                connection.close()
        return self.open(node, timeout)

    def ask(self, node: str, method: str, path: str, headers: Dict[str, str], body: Optional[bytes], timeout: float,
            until: float) -> Tuple[int, http.client.HTTPMessage, bytes]:
        """One exchange. It fails after `timeout` without progress (a megabyte sent is a second more), and at `until`."""
        connection = self._take(node, timeout)
        try:
            assert connection.sock is not None
            connection.sock.settimeout(max(0.01, min(timeout + len(body or b"") / 1e6, until - time.monotonic())))
            connection.response_class = functools.partial(_Answer, timeout=timeout, until=until)  # type: ignore[assignment]
            connection.request(method, path, body=body, headers=self.headers(headers))
            answer = connection.getresponse()
            pieces, size = [], 0
            while True:
                piece = answer.read(1 << 18)
                if not piece:
                    break
                pieces.append(piece)
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    raise _TooLarge(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
            data = b"".join(pieces)
            length = answer.headers.get("Content-Length")
            if length is not None and method != "HEAD" and answer.status not in (204, 304) and len(data) != int(length):
                raise _Broken("the answer was cut off")
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            # What else was kept of this node is likely to be of no use either.
            self.forget(node)
            raise _Broken(str(error) or type(error).__name__) from error
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.setdefault(node, collections.deque(maxlen=32)).append((time.monotonic(), connection))
        return answer.status, answer.headers, data

    def forget(self, node: str) -> None:
        with self._lock:
            for _, connection in self._idle.pop(node, ()):
                connection.close()

    def close(self) -> None:
        for node in list(self._idle):
            self.forget(node)

    def begin_anew(self) -> None:
        """Lets go of all connections; whoever else has them keeps them."""
        self._lock = threading.Lock()
        self.close()


# --- the client -------------------------------------------------------------------------------------------------------

class Client:
    """The store, from the addresses of one or more of its nodes, `host:port` as the map has them.

    timeout          seconds for an op, all attempts and pauses included; at most 480
    attempt_timeout  seconds for one exchange with one node
    token            who this client is: sent as a bearer token, to the given addresses and the nodes of the map only
    context          speaks TLS with it to all of them, see `tls`
    """

    def __init__(self, nodes: Iterable[str], *, timeout: float = 5.0, attempt_timeout: float = 1.5, token: Optional[str] = None,
                 context: Optional[ssl.SSLContext] = None, session: Optional[Session] = None) -> None:
        self.timeout, self.attempt_timeout = min(timeout, MAX_TIMEOUT), attempt_timeout
        self.session = session or Session()
        self._wire = _Wire(token, context)
        nodes = list(nodes)
        for node in nodes:
            if "://" in node and not node.startswith(self._wire.scheme):
                raise ValueError(f"{node}: this client speaks {self._wire.scheme}; for https give it a context")
        self._state = _State(self._wire, [node.split("://")[-1].rstrip("/") for node in nodes])
        try:
            self._state.refresh(time.monotonic() + self.timeout, must=True)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._wire.close()

    def with_session(self, session: Session) -> Client:
        """The same client for another user: connections and map are shared."""
        other = copy.copy(self)
        other.session = session
        return other

    @property
    def map(self) -> ShardMap:
        return self._state.map

    # --- single keys

    def get_entry(self, key: Bytes, *, primary: bool = False, stale: bool = False,
                  max_lag_ms: Optional[int] = None) -> Optional[Entry]:
        """The entry, or None. `primary`: of now; `stale`: whatever a node has; else what this session may see."""
        op = self._op("get", _key(key), primary_only=primary, session=None if stale else self.session)
        if max_lag_ms is not None:
            op.headers["Kv-Max-Lag-Ms"] = str(max_lag_ms)
        result = self._do(op)
        if result.status == 404:
            return None
        assert result.etag is not None
        return Entry(_key(key), result.value, result.etag, result.ttl_ms)

    def get(self, key: Bytes, *, primary: bool = False, stale: bool = False,
            max_lag_ms: Optional[int] = None) -> Optional[bytes]:
        """The value, or None; the options are those of `get_entry`."""
        entry = self.get_entry(key, primary=primary, stale=stale, max_lag_ms=max_lag_ms)
        return entry.value if entry else None

    def put(self, key: Bytes, value: Bytes, *, ttl: Optional[str] = None, if_match: Optional[Position] = None,
            if_absent: bool = False, if_exists: bool = False, ack: Optional[str] = None) -> Position:
        """Stores a value. `ttl` as "90s" (ms, s, m, h, d); without it the entry stays. Conflict if a condition fails."""
        op = self._op("put", _key(key), value=_raw(value), ttl=ttl, ack=ack, conditions=(if_match, if_absent, if_exists))
        return self._written(op)

    def delete(self, key: Bytes, *, if_match: Optional[Position] = None, ack: Optional[str] = None) -> Optional[Position]:
        """Removes a key; None if there was none."""
        try:
            return self._written(self._op("delete", _key(key), ack=ack, conditions=(if_match, False, False)))
        except NotFound:
            return None

    def incr(self, key: Bytes, delta: int = 1, *, ack: Optional[str] = None) -> int:
        """Adds to a counter; an absent key counts as 0. Its new value."""
        return int(self._do(self._op("incr", _key(key), delta=delta, ack=ack)).value)

    def touch(self, key: Bytes, ttl: str, *, if_match: Optional[Position] = None, ack: Optional[str] = None) -> Position:
        """Sets when a key expires. NotFound if there is none."""
        return self._written(self._op("expire", _key(key), ttl=ttl, ack=ack, conditions=(if_match, False, False)))

    def persist(self, key: Bytes, *, if_match: Optional[Position] = None, ack: Optional[str] = None) -> Position:
        """The key no longer expires. NotFound if there is none."""
        return self._written(self._op("persist", _key(key), ack=ack, conditions=(if_match, False, False)))

    # --- many keys

    def get_many(self, keys: Iterable[Bytes]) -> Dict[bytes, Optional[bytes]]:
        ops = {_key(key): self._op("get", _key(key)) for key in keys}
        found = dict(zip(ops, self._run(list(ops.values()), batch=True)))
        for result in found.values():
            if isinstance(result, KvError) and not isinstance(result, NotFound):
                raise result
        return {key: result.value if isinstance(result, Result) else None for key, result in found.items()}

    def put_many(self, items: Dict[Any, Bytes], *, ttl: Optional[str] = None,
                 ack: Optional[str] = None) -> Dict[bytes, Position]:
        """Stores values, each by itself; ManyFailed tells which were not."""
        ops = {_key(key): self._op("put", _key(key), value=_raw(value), ttl=ttl, ack=ack) for key, value in items.items()}
        done: Dict[bytes, Position] = {}
        errors: Dict[bytes, KvError] = {}
        for key, result in zip(ops, self._run(list(ops.values()), batch=True)):
            if isinstance(result, KvError):
                errors[key] = result
            elif result.position:
                done[key] = result.position
        if errors:
            raise ManyFailed(errors, done)
        return done

    def atomic(self, ops: Iterable[Dict[str, Any]], *, ack: Optional[str] = None) -> List[Result]:
        """Does all of it or nothing. Ops are lines of a batch: {"op": "put", "key": "{cart}:1", "value": b"..."}, where
        key and value may be bytes. All keys share a slot. A refusal names the op."""
        lines = []
        for op in ops:
            line = {name: given for name, given in op.items() if name not in ("key", "value")}
            for name in ("key", "value"):
                if name in op:
                    line.update(_field(name, _raw(op[name])))
            lines.append(line)
        if not lines:
            return []
        first = _key(_bytes_of(lines[0], "key") or b"")
        headers = {"Content-Type": NDJSON, **({"Kv-Ack": ack} if ack else {})}
        whole = _Op("atomic", lambda shards: shards.shard_of(first), "POST", "/batch?atomic", headers=headers, is_write=True,
                    body=_lines(lines), session=self.session)
        results = [_result_of_line(json.loads(line)) for line in self._do(whole).value.splitlines()]
        for result in results:
            if result.position:
                self.session.advance(self.map.shard_of(first).idx, result.position)
        return results

    # --- all shards

    def scan(self, prefix: Bytes = b"", *, start: Bytes = b"", end: Bytes = b"", limit: Optional[int] = None,
             reverse: bool = False, keys_only: bool = False, page: int = 250) -> Iterator[Entry]:
        """All entries in key order, over all shards. Not a snapshot: a key that is there throughout comes exactly once."""
        query = "".join(f"&{name}={quote(_raw(given), safe='')}" for name, given in
                        (("prefix", prefix), ("start", start), ("end", end)) if given)
        query += ("&reverse=true" if reverse else "") + ("&keys_only=true" if keys_only else "")
        shards = [self._scan_shard(shard.idx, min(page, limit or page), query) for shard in self.map.shards]
        for count, entry in enumerate(heapq.merge(*shards, key=lambda entry: entry.key, reverse=reverse)):
            if limit is not None and count >= limit:
                return
            yield entry

    def _scan_shard(self, idx: int, page: int, query: str) -> Iterator[Entry]:
        after: Optional[str] = ""
        while after is not None:
            path = f"/kv?limit={page}{query}" + (f"&after={after}" if after else "")
            op = _Op("scan", lambda shards: next(shard for shard in shards.shards if shard.idx == idx), path=path,
                     headers={"Accept": NDJSON}, session=self.session)
            try:
                answer = self._do(op).value
            except NotApplied as error:
                if error.code != "too_large" or page == 1:
                    raise
                page = page // 4 or 1
                continue
            *lines, last = [json.loads(line) for line in answer.splitlines()]
            self.session.advance(idx, Position.parse(last["position"]))
            for line in lines:
                yield Entry(_bytes_of(line, "key") or b"", _bytes_of(line, "value"), Position.parse(line["position"]),
                            line.get("ttl_ms"))
            after = last.get("next")

    def watch(self, prefix: Bytes = b"", *, after: Optional[Dict[int, Position]] = None) -> Watch:
        """All changes of keys with a prefix, in each shard's order: from now on, or behind positions by shard idx. When it
        returns every shard is being followed. Close it, or use it in a `with`."""
        return Watch(self, _raw(prefix), after or {})

    # --- how an op goes

    def _op(self, action: str, key: bytes, *, value: Optional[bytes] = None, ttl: Optional[str] = None,
            delta: Optional[int] = None, conditions: Tuple[Optional[Position], bool, bool] = (None, False, False),
            ack: Optional[str] = None, primary_only: bool = False, session: Any = ...) -> _Op:
        """An op in both its forms: as a request of its own and as a line of a batch."""
        method = {"get": "GET", "put": "PUT", "delete": "DELETE"}.get(action, "POST")
        query = ("persist" if action == "persist" else f"incr={delta}" if delta is not None
                 else f"ttl={quote(ttl)}" if ttl is not None else "")
        line: Dict[str, Any] = {"op": action, **_field("key", key)}
        line.update({name: given for name, given in (("ttl", ttl), ("delta", delta), ("ack", ack)) if given is not None})
        if value is not None:
            line.update(_field("value", value))
        headers = {"Kv-Ack": ack} if ack else {}
        match, absent, exists = conditions
        if sum((match is not None, absent, exists)) > 1:
            raise NotApplied("one condition at a time")
        if match is not None or exists:
            line["if_match"] = str(match) if match else "*"
            headers["If-Match"] = f'"{match}"' if match else "*"
        if absent:
            line["if_none_match"] = headers["If-None-Match"] = "*"
        return _Op(action, lambda shards: shards.shard_of(key), method, _path(key, query), line, headers, value or b"",
                   action != "get", primary_only, self.session if session is ... else session)

    def _written(self, op: _Op) -> Position:
        position = self._do(op).position
        assert position is not None
        return position

    def _do(self, op: _Op) -> Result:
        result = self._run([op])[0]
        if isinstance(result, NotFound) and op.action == "get":
            return Result(404)
        if isinstance(result, KvError):
            raise result
        return result

    def _run(self, ops: List[_Op], batch: bool = False) -> List[Union[Result, KvError]]:
        """Walks ops to their ends: attempt, judge, redirect, pause, again, under one deadline."""
        until = time.monotonic() + self.timeout
        for op in ops:
            op.until = until
        ceiling = FIRST_PAUSE
        done: Dict[int, Union[Result, KvError]] = {}
        with self._state.request_ids([op for op in ops if op.is_write]):
            while True:
                pause = False
                for node, group in self._grouped(ops, done, batch):
                    for at, result in self._attempt(node, group, ops, until):
                        outcome = self._judge(ops[at], node, result)
                        pause = pause or outcome == "pause"
                        if isinstance(outcome, (Result, KvError)):
                            done[at] = outcome
                if len(done) == len(ops):
                    return [done[at] for at in range(len(ops))]
                wait = random.uniform(0, ceiling) if pause else 0.0
                if time.monotonic() + wait + 0.02 >= until:
                    for at, op in enumerate(ops):
                        if at not in done:
                            kind = Unknown if op.unknown else Unavailable
                            done[at] = kind(f"the time of {self.timeout} s is over; last: {op.last}")
                    continue
                if pause:
                    time.sleep(wait)
                    ceiling = min(2 * ceiling, LONGEST_PAUSE)

    def _grouped(self, ops: List[_Op], done: Dict[int, Any], batch: bool) -> Iterator[Tuple[str, List[int]]]:
        """What is to be sent where: single ops, or batches of reads or writes to one node, within its limits."""
        self._state.catch_up(ops[0].until if ops else 0.0)
        groups: Dict[Tuple[str, bool], List[int]] = {}
        room: Dict[Tuple[str, bool], int] = {}
        for at, op in enumerate(ops):
            if at in done:
                continue
            node = self._state.node_for(op)
            size = 2 * len(op.body) + 4 * MAX_KEY_BYTES
            where = (node, op.is_write)
            if op.alone or not batch or size > 4 << 20:
                yield node, [at]
                continue
            if len(groups.get(where, ())) == MAX_BATCH_OPS or room.get(where, 0) + size > 8 << 20:
                yield node, groups.pop(where)
                room.pop(where)
            groups.setdefault(where, []).append(at)
            room[where] = room.get(where, 0) + size
        for (node, _), group in groups.items():
            yield node, group

    def _attempt(self, node: str, group: List[int], ops: List[_Op],
                 until: float) -> List[Tuple[int, Union[Result, Exception]]]:
        """One exchange with a node; a result or the failure of each op."""
        timeout = max(0.01, min(self.attempt_timeout, until - time.monotonic()))
        many = len(group) > 1
        try:
            for at in group:
                ops[at].asked_for = self._min_position(ops[at], node)
            if many:
                body = _lines(self._line(ops[at]) for at in group)
                answer = self._wire.ask(node, "POST", "/batch", {"Content-Type": NDJSON}, body, timeout, until)
            else:
                op = ops[group[0]]
                headers = {**op.headers, **({"Kv-Min-Position": str(op.asked_for)} if op.asked_for else {})}
                sent = op.body if op.method in ("PUT", "POST") else None
                answer = self._wire.ask(node, op.method, op.path, headers, sent, timeout, until)
            status, headers_back, data = answer
            self._state.heard(headers_back.get("Kv-Map-Version"))
            results = self._read(status, headers_back, data, len(group) if many else 0, ops[group[0]].action)
            return list(zip(group, results))
        except (_NotSent, _Broken) as error:
            self._state.went_wrong(node)
            return [(at, error) for at in group]

    def _min_position(self, op: _Op, node: str) -> Optional[Position]:
        owner = self.map.nodes.get(node)
        return op.session.position(owner.idx) if op.session and owner and not op.is_write else None

    @staticmethod
    def _line(op: _Op) -> Dict[str, Any]:
        return {**op.line, **({"min_position": str(op.asked_for)} if op.asked_for else {})}

    @staticmethod
    def _read(status: int, headers: http.client.HTTPMessage, data: bytes, count: int, action: str) -> List[Result]:
        """The results in an answer: `count` lines of a batch, or (0) the one that status, headers and body are."""
        try:
            if count and status == 200:
                results = [_result_of_line(json.loads(line)) for line in data.splitlines()]
                if len(results) != count:
                    raise ValueError(f"{len(results)} results for {count} ops")
                return [_whole(result, action) for result in results]
            if action == "scan" and status == 200 and not {"next", "done"} & json.loads(data.splitlines()[-1]).keys():
                raise ValueError("a scan without its end")
            if action == "atomic" and status == 200 and not [json.loads(line)["status"] for line in data.splitlines()]:
                raise ValueError("a batch without results")
            error = json.loads(data) if status >= 400 and headers.get_content_type() == "application/json" else {}
            if 400 <= status < 500 and not error:
                raise ValueError(f"a {status} that says nothing, as of another program")
            target = (headers.get("Location") or "").partition("://")
            scheme, address = target[0] + target[1], target[2].split("/")[0].split("?")[0]
            ttl = headers.get("Kv-Ttl-Ms")
            one = Result(status, headers.get("Kv-Applied"), _position_of(headers.get("Kv-Position")),
                          _position_of(headers.get("ETag")), int(ttl) if ttl else None, b"" if error else data,
                          error.get("error", ""), error.get("message", ""),
                          scheme + address if address else "", headers.get("Kv-Shard") or "")
            return [_whole(one, action)] * max(1, count)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise _Broken(f"the answer cannot be read: {error}") from error

    def _judge(self, op: _Op, node: str, result: Union[Result, Exception]) -> Union[Result, KvError, str]:
        """What an attempt means: the result, an error, "again" at once, or "pause" and then again."""
        state = self._state
        if isinstance(result, _TooLarge) and not op.is_write:
            if op.action == "scan" or op.alone:
                return NotApplied(str(result), "too_large", node)
            op.alone = True
            return "again"
        if isinstance(result, Exception):
            op.unknown = op.unknown or (op.is_write and isinstance(result, _Broken))
            op.last, op.target = f"{result} (at {node})", ""
            return self._next(op, node)
        owner = state.map.nodes.get(node)
        if op.action == "scan" and owner and result.shard != owner.name:
            op.last = f"{node} belongs to {result.shard!r} now"
            state.refresh(self._soon(op))
            return self._next(op, node)
        if result.status < 300 or result.status in (304, 404) and result.error != "no_such_path":
            seen = result.etag if op.action == "get" and result.etag else result.position
            if op.session and owner and seen:
                op.session.advance(owner.idx, seen)
            if result.status < 300 or result.status == 304:
                return result
        op.last = f"{result.status} {result.error} {result.message} (at {node})".replace("  ", " ")
        # Below 500 a node refuses before it acts; above, only its word "no" says that it did not.
        op.unknown = op.unknown or (op.is_write and (result.applied == "unknown" or
                                                     result.status >= 500 and result.applied != "no"))
        code = result.error
        if result.status == 307 or code == "read_only_replica":
            return self._redirect(op, node, result)
        if code == "position_lost" and op.session and owner and op.asked_for:
            return self._error(op, node, result) if op.session.forget(owner.idx, op.asked_for) else "again"
        if code == "too_large" and not op.is_write and not op.alone:
            op.alone = True
            return "again"
        if code in ("overloaded", "too_many_requests", "too_few_replicas", "ack_timeout"):
            return "pause"
        final = code in ("deadline_exceeded", "request_id_expired", "no_space", "not_implemented") or (
            code == "damaged" and (op.is_write or (op.asked | {node}).issuperset(op.shard(state.map).nodes)))
        if result.status >= 500 and not final:
            return self._next(op, node)
        return self._error(op, node, result)

    def _next(self, op: _Op, node: str) -> str:
        """Another node of the shard, if this op may go to one that was not asked yet; else a pause, then all again."""
        op.asked.add(node)
        if not (op.is_write or op.primary_only or op.asked.issuperset(op.shard(self.map).nodes)):
            return "again"
        op.asked.clear()
        op.hops = 0
        return "pause"

    def _redirect(self, op: _Op, node: str, result: Result) -> Union[KvError, str]:
        """Goes where a node points, if the map knows that place; nothing else is ever sent anything."""
        scheme, _, address = result.target.rpartition("://")
        op.hops += 1
        self._state.refresh(self._soon(op), hint=node)
        is_sound = op.hops <= MAX_HOPS and (not scheme or scheme + "://" == self._wire.scheme)
        if is_sound and address not in self.map.nodes:
            self._state.refresh(self._soon(op), hint=node, must=True)
        if not is_sound or address not in self.map.nodes:
            kind = Unknown if op.unknown else NotApplied
            return kind(f"was sent to {result.target!r}, which is too far or not in the map", "misrouted", node)
        op.target = address
        return "again"

    def _soon(self, op: _Op) -> float:
        """How long an op looks for a newer map at most."""
        return min(op.until, time.monotonic() + self.attempt_timeout)

    @staticmethod
    def _error(op: _Op, node: str, result: Result) -> KvError:
        code = result.error or f"status {result.status}"
        # What may have been applied before stays unknown, whatever a repeat is told: refusals are not remembered.
        kind = Unknown if op.unknown else {"precondition_failed": Conflict, "not_found": NotFound,
                                           "position_lost": PositionLost, **_DENIED}.get(code, NotApplied)
        return kind(result.message, code, node, result.etag if code == "precondition_failed" else result.position)


class _State:
    """What all ops of a client share: the map in force, nodes that are away, request ids under way."""

    def __init__(self, wire: _Wire, seeds: List[str]) -> None:
        self.map: ShardMap
        self._wire, self._seeds = wire, seeds
        self._lock, self._refreshing = threading.Lock(), threading.Lock()
        self._away: Dict[str, float] = {}
        self._last_refresh, self._is_old = 0.0, False
        self._client, self._n = uuid.uuid4(), 0
        self._under_way: Set[int] = set()
        _states.add(self)

    @contextlib.contextmanager
    def request_ids(self, writes: List[_Op]) -> Iterator[None]:
        """Gives each write a number for as long as its caller waits. The floor is the lowest that any caller waits for."""
        with self._lock:
            client, under_way = self._client, self._under_way
            numbers = list(range(self._n + 1, self._n + 1 + len(writes)))
            self._n += len(writes)
            under_way.update(numbers)
            floor = min(under_way, default=0)
        for op, n in zip(writes, numbers):
            op.headers["Kv-Request-Id"] = op.line["request_id"] = f"{client}.{n};floor={floor}"
        try:
            yield
        finally:
            with self._lock:
                under_way.difference_update(numbers)

    def begin_anew(self) -> None:
        """In a process that was forked: another client, with ids, locks and connections of its own. Under the ids of its
        parent a write would be answered as one of the parent's, not done; and in one connection bytes of both would mix."""
        self._lock, self._refreshing = threading.Lock(), threading.Lock()
        self._client, self._n, self._under_way = uuid.uuid4(), 0, set()
        self._wire.begin_anew()

    def node_for(self, op: _Op) -> str:
        """A redirect's target; the primary for writes; for reads one of the shard's nodes that was not asked yet."""
        if op.target:
            target, op.target = op.target, ""
            return target
        nodes = op.shard(self.map).nodes
        if op.is_write or op.primary_only:
            return nodes[0]
        fresh = [node for node in nodes if node not in op.asked]
        if not fresh:
            op.asked.clear()
            fresh = list(nodes)
        now = time.monotonic()
        return min(fresh, key=lambda node: (self._away.get(node, 0) > now, random.random()))

    def went_wrong(self, node: str) -> None:
        """A node failed: reads leave it alone for a while, and the map may have changed."""
        self._away[node] = time.monotonic() + 1.0
        self._is_old = True

    def heard(self, identity: Optional[str]) -> None:
        version = (identity or "").partition("-")[0]
        if version.isdigit() and int(version) > self.map.version:
            self._is_old = True

    def catch_up(self, until: float) -> None:
        if self._is_old:
            self.refresh(min(until, time.monotonic() + 1.0))

    def refresh(self, until: float, hint: str = "", must: bool = False) -> None:
        """Asks nodes for a newer map: one thread at a time, at most once a second, unless somebody needs it (`must`). Ends
        by `until`, also without."""
        if not self._refreshing.acquire(timeout=max(0.0, until - time.monotonic()) if must else 0):
            return
        try:
            if not must and time.monotonic() - self._last_refresh < 1.0:
                return
            self._is_old = False
            self._ask(until, hint)
            self._last_refresh = time.monotonic()
        finally:
            self._refreshing.release()

    def _ask(self, until: float, hint: str) -> None:
        current = getattr(self, "map", None)
        # Once there is a map, only its nodes are asked.
        known = list(current.nodes) if current else list(self._seeds)
        now = time.monotonic()
        known.sort(key=lambda node: (node != hint, self._away.get(node, 0) > now, random.random()))
        problem, denied = "no address was given", False
        for node in known:
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                etag = {"If-None-Match": f'"{current.identity}"'} if current else {}
                status, _, data = self._wire.ask(node, "GET", "/cluster/map", etag, None, min(left, 1.0), until)
                if status == 304:
                    return
                if status == 200:
                    newer = ShardMap(data)
                    if current is None or newer.version > current.version:
                        self.map = newer
                    return
                problem, denied = f"status {status}", denied or status in (401, 403)
            except (_NotSent, _Broken, ValueError, KeyError, TypeError, IndexError) as error:
                problem = str(error)
            problem += f" (at {node})"
        if current is None and denied:
            raise Denied(f"no node gave the map to who has this token; last: {problem}", "unauthorized")
        if current is None:
            raise Unavailable(f"no node gave the map; last: {problem}")


_states: "weakref.WeakSet[_State]" = weakref.WeakSet()


def _after_fork() -> None:
    for state in list(_states):
        state.begin_anew()


# Before anything else runs in the child. Where there is no fork, there is no such function.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _sse(answer: http.client.HTTPResponse) -> Iterator[Dict[str, str]]:
    """The events of a stream, each as its fields. Lines that begin with a colon are comments."""
    fields: Dict[str, str] = {}
    size = 0
    for raw in _stream_lines(answer):
        name, _, value = raw.decode().partition(":")
        size += len(raw)
        if size > MAX_EVENT_BYTES:
            raise NotApplied(f"an event has more than {MAX_EVENT_BYTES} bytes", "too_large")
        if not raw:
            yield fields
            fields, size = {}, 0
        elif name:
            value = value[1:] if value.startswith(" ") else value
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value


def _stream_lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Lines as they come, with LF, CR LF or CR behind each. The last one, if nothing ends it, is none."""
    after_cr = False
    pieces: List[bytes] = []
    size = 0
    while True:
        piece = answer.read1(1 << 16)
        if not piece:
            return
        if after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        after_cr = piece.endswith(b"\r")
        pieces.append(piece)
        size += len(piece)
        # A long line comes in many pieces, and only its end has a line break.
        if b"\n" in piece or b"\r" in piece:
            *whole, rest = re.split(rb"\r\n|\n|\r", b"".join(pieces))
            yield from whole
            pieces, size = [rest], len(rest)
        if size > MAX_EVENT_BYTES:
            raise NotApplied(f"a line has more than {MAX_EVENT_BYTES} bytes", "too_large")


class Watch:
    """Changes as they happen: an iterator without an end. `positions` is what was given out, by shard idx; a watch that
    begins behind it goes on without gap or repeat. A broken connection is resumed at another node by itself."""

    def __init__(self, client: Client, prefix: bytes, after: Dict[int, Position]) -> None:
        self.positions: Dict[int, Position] = dict(after)
        self._client, self._prefix = client, prefix
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=1_000)
        self._closed = threading.Event()
        self._sockets: Dict[int, socket.socket] = {}
        began = [threading.Event() for _ in client.map.shards]
        for shard, event in zip(client.map.shards, began):
            threading.Thread(target=self._follow, args=(shard.idx, after.get(shard.idx), event), daemon=True).start()
        until = time.monotonic() + client.timeout
        if not all(event.wait(max(0.0, until - time.monotonic())) for event in began):
            self.close()
            raise Unavailable("not every shard could be followed in time")

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Change:
        change = self.next(timeout=None)
        if change is None:
            raise StopIteration
        return change

    def next(self, timeout: Optional[float]) -> Optional[Change]:
        """The next change; None if none came in time, or the watch is closed. What ended it is raised."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._closed.is_set():
                return None
            try:
                left = 0.5 if until is None else max(0.0, until - time.monotonic())
                item = self._queue.get(timeout=left)
            except queue.Empty:
                if until is not None and time.monotonic() >= until:
                    return None
                continue
            if isinstance(item, KvError):
                self.close()
                raise item
            idx, position, change = item
            self.positions[idx] = position
            # Whoever scans or reads now sees at least what he was told.
            self._client.session.advance(idx, position)
            if isinstance(change, Change):
                return change

    def close(self) -> None:
        self._closed.set()
        for sock in list(self._sockets.values()):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _put(self, item: Any) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                pass

    def _follow(self, idx: int, at: Optional[Position], began: threading.Event) -> None:
        """One shard, from node to node, until it is closed or cannot go on."""
        state, pause = self._client._state, FIRST_PAUSE
        shape = _Op("watch", lambda shards: next(shard for shard in shards.shards if shard.idx == idx))
        while not self._closed.is_set():
            node = state.node_for(shape)
            try:
                for position, change in self._events(node, idx, at):
                    if self._closed.is_set():
                        return
                    # A watch from now on has a place to go on from before anybody is told that it began; and it has
                    # begun also while the others have filled the queue.
                    at, pause = position, FIRST_PAUSE
                    began.set()
                    self._put((idx, position, change))
            except (_NotSent, _Broken, OSError, http.client.HTTPException, ValueError, KeyError, AttributeError):
                state.went_wrong(node)
                state.catch_up(time.monotonic() + 1.0)
            except KvError as error:
                self._put(error)
                began.set()
                return
            shape.asked.add(node)
            self._closed.wait(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _events(self, node: str, idx: int, at: Optional[Position]) -> Iterator[Tuple[Position, Any]]:
        """The events of one connection, behind `at`. Ends where the connection does."""
        wire = self._client._wire
        connection = wire.open(node, self._client.attempt_timeout)
        try:
            path = f"/watch?prefix={quote(self._prefix, safe='')}" + (f"&after={at}" if at else "")
            connection.request("GET", path, headers=wire.headers({"Accept": "text/event-stream"}))
            sock, answer = connection.sock, connection.getresponse()
            if answer.status != 200:
                self._refused(answer.status, answer.read(1 << 16), node)
            if answer.headers.get("Kv-Shard") != self._client.map.nodes[node].name:
                raise _Broken("another shard answers")
            sock.settimeout(WATCH_SILENCE)
            self._sockets[idx] = sock
            for fields in _sse(answer):
                event = self._event(idx, fields, node)
                if event:
                    yield event
        finally:
            self._sockets.pop(idx, None)
            connection.close()

    @staticmethod
    def _refused(status: int, body: bytes, node: str) -> None:
        error = json.loads(body)
        code = error.get("error", "")
        if status >= 500:
            raise _Broken(code)
        kind = {"log_truncated": Truncated, "position_lost": PositionLost, **_DENIED}.get(code, NotApplied)
        raise kind(error.get("message", ""), code, node)

    @staticmethod
    def _event(idx: int, fields: Dict[str, str], node: str) -> Optional[Tuple[Position, Optional[Change]]]:
        kind = fields.get("event", "")
        if "data" not in fields or kind not in ("put", "delete", "expire", "position", "log_truncated"):
            return None
        data = json.loads(fields["data"])
        if kind == "log_truncated":
            raise Truncated("the log went on without this watch", kind, node, Position.parse(data["position"]))
        at = Position.parse(fields["id"])
        if kind == "position":
            return at, None
        return at, Change(idx, at, kind, _bytes_of(data, "key") or b"", _bytes_of(data, "value"), data.get("expires_at_ms"),
                          data.get("by_expiry", False), data.get("time_ms", 0))


# --- from a shell -----------------------------------------------------------------------------------------------------

def _print(*parts: bytes) -> None:
    sys.stdout.buffer.write(b"\t".join(parts) + b"\n")
    sys.stdout.buffer.flush()


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="A small client of the key-value store. A token is taken from KV_TOKEN. "
                                                 "Exit codes: 0, 1 absent, 2 failed.")
    parser.add_argument("--node", required=True, metavar="HOST:PORT", action="append", help="any node of the cluster")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS")
    for name, what in (("ca", "speak TLS, with nodes whose certificates are signed by these authorities"),
                       ("cert", "certificate to show to them"), ("key", "its key")):
        variable = "KV_" + name.upper()
        parser.add_argument("--" + name, dest="tls_" + name, default=os.environ.get(variable) or None, metavar="FILE",
                            help=f"{what} [env: {variable}]")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, given in (("get", ["key"]), ("put", ["key", "value"]), ("delete", ["key"]), ("incr", ["key", "delta"]),
                        ("touch", ["key", "ttl"]), ("persist", ["key"]), ("scan", ["prefix"]), ("watch", ["prefix"]),
                        ("map", [])):
        command = commands.add_parser(name)
        for one in given:
            command.add_argument(one)
        if name == "put":
            command.add_argument("--ttl", help="such as 90s")
            command.add_argument("--if-absent", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        context = tls(asked.tls_ca, asked.tls_cert, asked.tls_key) if asked.tls_ca else None
        # Not from an argument: everybody on a machine sees those.
        token = os.environ.get("KV_TOKEN") or None
        with Client(asked.node, timeout=asked.timeout, token=token, context=context) as kv:
            return _command(kv, asked)
    except KvError as error:
        print(f"kv.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 1 if isinstance(error, NotFound) else 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 0


def _command(kv: Client, asked: argparse.Namespace) -> int:
    if asked.command == "get":
        value = kv.get(asked.key)
        if value is None:
            return 1
        sys.stdout.buffer.write(value)
    elif asked.command == "put":
        _print(str(kv.put(asked.key, asked.value, ttl=asked.ttl, if_absent=asked.if_absent)).encode())
    elif asked.command == "delete":
        return 0 if kv.delete(asked.key) else 1
    elif asked.command == "incr":
        _print(str(kv.incr(asked.key, int(asked.delta))).encode())
    elif asked.command == "touch":
        kv.touch(asked.key, asked.ttl)
    elif asked.command == "persist":
        kv.persist(asked.key)
    elif asked.command == "scan":
        for entry in kv.scan(asked.prefix):
            _print(entry.key, entry.value or b"")
    elif asked.command == "watch":
        for change in kv.watch(asked.prefix):
            _print(change.kind.encode(), change.key, change.value or b"")
    else:
        for shard in kv.map.shards:
            _print(shard.name.encode(), " ".join(shard.nodes).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
