"""What kv.py does against a real cluster: three shards, each with a replica, on free ports of 127.0.0.1.

    KVNODE_BIN=target/release/kvnode python3 -m unittest -v test_kv        (in this directory)

Starts nodes and stops them by their process ids; their data is in a temporary directory. The primary of the first shard is
reached through a proxy that cuts connections where a test wants it. Nothing waits a fixed time: conditions have deadlines.
"""
import contextlib
import hashlib
import http.client
import http.server
import io
import json
import os
import pathlib
import random
import re
import signal
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import kv as client_module  # noqa: E402
from kv import (Client, Conflict, Denied, ManyFailed, NotApplied, NotFound, Position, PositionLost, Session,  # noqa: E402
                Truncated, Unavailable, Unknown, hash_tag, slot_of, xxh3_64)

ROOT = HERE.parent.parent
VECTORS = ROOT / "kvclient/tests/slots.tsv"
PAGE = (ROOT / "docs/protocol.md").read_text()
NODE = os.environ.get("KVNODE_BIN", str(ROOT / "target/release/kvnode"))


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Asks until it is so; fails with what was waited for."""
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= until:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


_given: Set[int] = set()


def free_port() -> int:
    """A port below those that the kernel gives to clients, free now and not given before."""
    while True:
        port = random.randrange(20_000, 26_900)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


class Proxy:
    """Passes bytes on. Armed, it lets requests through and cuts the connection when their answer comes."""

    def __init__(self, listen: int, to: int) -> None:
        self._to = to
        self._cuts = 0
        self.was_cut = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", listen))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_answers(self, count: int) -> None:
        """Cuts the answers to the next requests that write."""
        with self._lock:
            self._cuts = count

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrote = threading.Event()
            threading.Thread(target=self._pump, args=(near, far, wrote, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, wrote, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, wrote: threading.Event, is_request: bool) -> None:
        try:
            while True:
                data = source.recv(1 << 16)
                if not data:
                    break
                if is_request and data.startswith((b"PUT /kv", b"POST /kv", b"POST /batch", b"DELETE /kv")):
                    wrote.set()
                if not is_request and wrote.is_set() and self._cuts_this(wrote):
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def _cuts_this(self, wrote: threading.Event) -> bool:
        with self._lock:
            wrote.clear()
            if self._cuts == 0:
                return False
            self._cuts -= 1
            self.was_cut += 1
            return True


class Cluster:
    """Six nodes as processes."""

    def __init__(self) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="kv-python-")
        self.root = pathlib.Path(self._dir.name)
        self.primaries = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        self.replicas = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        behind = free_port()
        self.proxy = Proxy(int(self.primaries[0].split(":")[1]), behind)
        self._listen = {self.primaries[0]: f"127.0.0.1:{behind}"}
        self._nodes: Dict[str, "subprocess.Popen[bytes]"] = {}
        self.map = self.root / "sharding.toml"
        self.map.write_text("".join(
            f'[[shards]]\nname = "shard{i + 1}"\nidx = {i}\naddress = "{primary}"\nreplica = "{replica}"\n'
            for i, (primary, replica) in enumerate(zip(self.primaries, self.replicas))))
        for node in self.nodes:
            self.start(node)
        for node in self.nodes:
            self.wait_ready(node)

    @property
    def nodes(self) -> List[str]:
        return self.primaries + self.replicas

    def start(self, node: str) -> None:
        command = [NODE, "--config", str(self.map), "--address", node, "--data", str(self.root / node.split(":")[1]),
                   "--workers", "1", "--log-segment-size", "8MiB", "--log-level", "warn"]
        if node in self._listen:
            command += ["--listen", self._listen[node]]
        with open(self.root / f"{node.split(':')[1]}.log", "ab") as log:
            plain = {name: value for name, value in os.environ.items() if not name.startswith("KVNODE_")}
            self._nodes[node] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=plain)

    def send(self, node: str, which: int) -> None:
        self._nodes[node].send_signal(which)

    def end(self, node: str, which: int = signal.SIGKILL) -> None:
        self._nodes[node].send_signal(which)
        self._nodes[node].wait(15)

    def wait_ready(self, node: str) -> None:
        def is_ready() -> bool:
            try:
                return ask(node, "GET", "/readyz").status == 200
            except OSError:
                log = self.root / f"{node.split(':')[1]}.log"
                assert self._nodes[node].poll() is None, log.read_text()
                return False
        wait_for(f"{node} is ready", is_ready)

    def stop(self) -> None:
        for process in self._nodes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._nodes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.proxy.close()
        self._dir.cleanup()


class Answer:
    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


def ask(node: str, method: str, path: str, body: Optional[bytes] = None, headers: Optional[Dict[str, str]] = None) -> Answer:
    """One request by hand, as curl would send it."""
    host, port = node.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def lines(*ops: Dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, ops)).encode()


class FakeNode:
    """A node that answers as a test says: (method, path, headers, body) -> (status, headers, body)."""

    def __init__(self, answer: Callable[..., Tuple[int, Dict[str, str], bytes]],
                 context: Optional[ssl.SSLContext] = None) -> None:
        self.seen: List[Tuple[str, str, Dict[str, str]]] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.seen.append((self.command, self.path, dict(self.headers)))
                status, headers, data = answer(self.command, self.path, self.headers, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = _any

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self._server.daemon_threads = True
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> "FakeNode":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def map_of(*shards: List[str], version: int = 1) -> bytes:
    """A map's JSON: even slots, each shard a list of addresses, the primary first."""
    def slots(i: int) -> str:
        first = -(-i * 16384 // len(shards))
        return f"{first}-{-(-(i + 1) * 16384 // len(shards)) - 1}"
    parts = [{"name": f"s{i}", "idx": i, "slots": [slots(i)], "primary": {"address": nodes[0]},
              "replicas": [{"address": node} for node in nodes[1:]]} for i, nodes in enumerate(shards)]
    return json.dumps({"version": version, "identity": f"{version}-00", "shards": parts}).encode()


def drip(listener: socket.socket, head: bytes) -> None:
    """Answers every connection with a head and then a byte every few ms, for much longer than anyone has time."""
    with contextlib.suppress(OSError):
        while True:
            near, _ = listener.accept()
            with near, contextlib.suppress(OSError):
                near.sendall(head)
                for _ in range(200):
                    near.sendall(b"H")
                    time.sleep(0.02)


class Slots(unittest.TestCase):
    def test_every_vector(self) -> None:
        rows = [line.rstrip("\n").split("\t") for line in VECTORS.read_text().splitlines() if not line.startswith("#")]
        self.assertGreater(len(rows), 25)
        for key, tag, hashed, slot in rows:
            with self.subTest(length=len(key) // 2, slot=slot):
                self.assertEqual(hash_tag(bytes.fromhex(key)).hex(), tag)
                self.assertEqual(f"{xxh3_64(bytes.fromhex(tag)):016x}", hashed)
                self.assertEqual(slot_of(bytes.fromhex(key)), int(slot))


class ProtocolPage(unittest.TestCase):
    """docs/protocol.md against the code that it describes; its bytes are sent to a node further down."""

    def test_its_errors_are_those_of_the_code(self) -> None:
        source = (ROOT / "kvclient/src/wire/error.rs").read_text()
        table = source[source.index("const TABLE"):source.index("];", source.index("const TABLE"))]
        of_code = set(re.findall(r'"([a-z_]+)",\s*(\d{3})', table)) - {("other", "500")}
        of_page = re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", PAGE, re.MULTILINE)
        self.assertGreater(len(of_code), 35)
        self.assertEqual({(code, status) for status, code in of_page}, of_code)
        self.assertEqual(len(of_page), len(of_code))

    def test_its_slots_are_right(self) -> None:
        rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| `([0-9a-f]{16})` \| (\d+) \|", PAGE, re.MULTILINE)
        self.assertGreater(len(rows), 8)
        for key, tag, hashed, slot in rows:
            self.assertEqual((hash_tag(key.encode()), f"{xxh3_64(tag.encode()):016x}", slot_of(key.encode())),
                             (tag.encode(), hashed, int(slot)))

    def test_its_byte_tables_are_those_of_the_code(self) -> None:
        def words(text: str) -> List[str]:
            return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        page = words(PAGE)
        for name in ("batch/op.rs", "batch/result.rs", "scan.rs"):
            source = (ROOT / "kvclient/src/wire" / name).read_text()
            block = re.sub("(?m)^//! ?", "", source[:source.index("\nuse ")]).split("```text\n")[1].split("```")[0]
            self.assertGreater(len(words(block)), 5)
            for line in words(block):
                self.assertIn(line, page)

    def test_its_headers_are_those_of_the_code(self) -> None:
        source = (ROOT / "kvclient/src/wire/mod.rs").read_text()
        for name in re.findall(r'"(kv-[a-z-]+)"', source.split("/// Between nodes")[0]):
            self.assertIn(f"`{name}", PAGE.lower())
        routes = source[source.index("pub mod route"):source.index("pub mod header")]
        for path in re.findall(r'= "(/[^"]+)"', routes):
            self.assertRegex(PAGE, rf"(GET|POST) {path}\b")


class Sessions(unittest.TestCase):
    def test_a_session_never_goes_back_and_travels_as_a_token(self) -> None:
        session = Session.from_token("kv1_0.3.1207")
        session.advance(2, Position(1, 9))
        session.advance(2, Position(1, 4))
        session.advance(0, Position(2, 5000))
        self.assertEqual(session.token(), "kv1_0.3.1207_2.1.9")
        self.assertFalse(session.forget(2, Position(1, 4)))
        self.assertTrue(session.forget(2, Position(1, 9)))
        self.assertEqual(session.token(), "kv1_0.3.1207")
        self.assertRaises(ValueError, Session.from_token, "kv2_0.3.1")


class AgainstScriptedNodes(unittest.TestCase):
    """Against nodes that say what a test wants."""

    def test_a_target_outside_the_map_is_sent_nothing(self) -> None:
        with FakeNode(lambda *_: (204, {"Kv-Position": "1.1"}, b"")) as evil:
            own: List[str] = []

            def answer(method: str, path: str, *_: Any) -> Tuple[int, Dict[str, str], bytes]:
                if path == "/cluster/map":
                    return 200, {}, map_of(own)
                return 307, {"Location": f"http://{evil.address}{path}", "Kv-Applied": "no"}, b""
            with FakeNode(answer) as node:
                own.append(node.address)
                with Client([node.address], token="secret") as kv:
                    for attempt in (lambda: kv.put("a", "1"), lambda: kv.get("a")):
                        with self.assertRaises(NotApplied) as raised:
                            attempt()
                        self.assertEqual(raised.exception.code, "misrouted")
                self.assertEqual(evil.seen, [])
                # The node of the map has had the token with every request.
                self.assertTrue(all(headers.get("Authorization") == "Bearer secret" for _, _, headers in node.seen))

    @unittest.skipUnless(shutil.which("openssl"), "openssl, which makes the certificate, is not installed")
    def test_with_tls_nothing_is_sent_in_clear(self) -> None:
        own: List[str] = []
        scheme = ["https"]

        def answer(method: str, path: str, *_: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of([own[0]], [own[1]])
            return 307, {"Location": f"{scheme[0]}://{own[1]}{path}"}, b""

        def found(*_: Any) -> Tuple[int, Dict[str, str], bytes]:
            return 200, {"ETag": '"1.1"', "Kv-Position": "1.1"}, b"x"
        with tempfile.TemporaryDirectory() as directory:
            pem = os.path.join(directory, "node.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                            "-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem,
                            "-out", pem + ".crt"], check=True, capture_output=True)
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(pem + ".crt", pem)
            trusting = client_module.tls(pem + ".crt")
            nodes = [FakeNode(answer, server), FakeNode(found, server)]
            own.extend(node.address for node in nodes)
            with nodes[0], nodes[1]:
                with Client([own[0]], context=trusting, token="secret") as kv:
                    self.assertEqual(kv.map.shard_of(b"a").idx, 0)
                    self.assertEqual(kv.get("a"), b"x")
                    self.assertEqual(nodes[1].seen[-1][2].get("Authorization"), "Bearer secret")
                # Who asks for a certificate is shown one.
                server.load_verify_locations(pem + ".crt")
                server.verify_mode = ssl.CERT_REQUIRED
                with Client([own[0]], context=client_module.tls(pem + ".crt", pem + ".crt", pem)) as kv:
                    self.assertEqual(kv.get("a"), b"x")
                self.assertRaises(Unavailable, Client, [own[0]], context=trusting, timeout=0.5)
                shown = io.BytesIO()
                with unittest.mock.patch("sys.stdout", unittest.mock.Mock(buffer=shown)):
                    self.assertEqual(client_module.main(["--node", f"https://{own[0]}", "--ca", pem + ".crt", "--cert", pem + ".crt",
                                                         "--key", pem, "get", "a"]), 0)
                self.assertEqual(shown.getvalue(), b"x")
                server.verify_mode = ssl.CERT_NONE
                scheme[0] = "http"
                nodes[0].seen.clear()
                with Client([own[0]], context=trusting) as kv, self.assertRaises(NotApplied) as raised:
                    kv.get("a")
                self.assertEqual(raised.exception.code, "misrouted")
                # A certificate that is not trusted ends it before anything is sent.
                nodes[0].seen.clear()
                self.assertRaises(Unavailable, Client, [own[0]], context=ssl.create_default_context(), timeout=0.5)
                self.assertEqual(nodes[0].seen, [])

    def test_a_circle_ends(self) -> None:
        own: List[str] = []

        def answer(_: str, path: str, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            return 307, {"Location": f"http://{own[0]}{path}", "Kv-Applied": "no"}, b""
        with FakeNode(answer) as node:
            own.append(node.address)
            with Client([node.address]) as kv, self.assertRaises(NotApplied):
                kv.put("a", "1")
            self.assertEqual(sum(path == "/kv/a" for _, path, _ in node.seen), 1 + client_module.MAX_HOPS)

    def test_a_newer_map_is_adopted_and_an_older_one_is_not(self) -> None:
        maps: List[bytes] = []

        def answer(_: str, path: str, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, maps[0]
            return 200, {"ETag": '"1.1"', "Kv-Position": "1.1", "Kv-Map-Version": json.loads(maps[0])["identity"]}, b"x"
        with FakeNode(answer) as node, FakeNode(answer) as other:
            maps.append(map_of([node.address], version=4))
            with Client([node.address]) as kv:
                maps[0] = map_of([other.address], version=5)
                wait_for("the newer map", lambda: kv.get("a") and kv.map.version == 5)
                self.assertEqual(list(kv.map.nodes), [other.address])
                maps[0] = map_of([node.address], version=3)
                kv._state.refresh(time.monotonic() + 1.0, must=True)
                self.assertEqual(kv.map.version, 5)

    def test_an_answer_of_no_node_is_no_answer(self) -> None:
        """A connection on which nothing came in time ends with a bare 408, which then lies there for the next request."""
        own: List[str] = []
        bare = [408, 408]

        def answer(_: str, path: str, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            if bare:
                return bare.pop(), {}, b""
            return 200, {"ETag": '"1.1"', "Kv-Position": "1.1", "Kv-Applied": "yes"}, b"x"
        with FakeNode(answer) as node:
            own.append(node.address)
            with Client([node.address]) as kv:
                self.assertEqual(kv.get("a"), b"x")
                bare.append(408)
                self.assertEqual(kv.put("a", "1"), Position(1, 1))
                ids = [headers["Kv-Request-Id"] for method, _, headers in node.seen if method == "PUT"]
                self.assertEqual((len(ids), len(set(ids))), (2, 1))

    def test_a_refusal_after_a_lost_answer_stays_unknown(self) -> None:
        own: List[str] = []
        puts: List[int] = []

        def answer(method: str, path: str, *_: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            puts.append(1)
            if len(puts) == 1:
                raise ConnectionResetError("cut")
            return (412, {"Kv-Applied": "no", "Content-Type": "application/json", "ETag": '"1.7"'},
                    b'{"error":"precondition_failed","message":"no"}')
        with FakeNode(answer) as node:
            node._server.handle_error = lambda *_: None  # type: ignore[method-assign]
            own.append(node.address)
            with Client([node.address]) as kv:
                self.assertRaises(Unknown, kv.put, "a", "1", if_absent=True)
                with self.assertRaises(Conflict) as raised:
                    kv.put("a", "1", if_absent=True)
                self.assertEqual(raised.exception.position, Position(1, 7))

    def test_a_lost_position_is_told_once(self) -> None:
        own: List[str] = []

        def answer(_: str, path: str, headers: Any, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            if headers.get("Kv-Min-Position") == "1.50":
                return (410, {"Content-Type": "application/json", "Kv-Position": "2.9"},
                        b'{"error":"position_lost","message":"gone"}')
            return 200, {"ETag": '"2.3"', "Kv-Position": "2.9"}, b"x"
        with FakeNode(answer) as node:
            own.append(node.address)
            with Client([node.address], session=Session({0: Position(1, 50)})) as kv:
                self.assertRaises(PositionLost, kv.get, "a")
                self.assertEqual(kv.get("a"), b"x")
                self.assertEqual(kv.session.token(), "kv1_0.2.3")

    def test_a_log_that_went_on_is_told(self) -> None:
        own: List[str] = []

        def answer(_: str, path: str, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            return 410, {"Content-Type": "application/json"}, b'{"error":"log_truncated","message":"gone"}'
        with FakeNode(answer) as node:
            own.append(node.address)
            with Client([node.address]) as kv, kv.watch(after={0: Position(1, 1)}) as watch:
                self.assertRaises(Truncated, watch.next, 10)

    def test_a_watch_that_broke_off_goes_on_behind_its_last_event(self) -> None:
        own: List[str] = []
        bodies = {"": b'event: position\nid: 1.4\ndata: {"position":"1.4"}\n\n'
                      b': a comment\nevent: put\nid: 1.5\ndata: {"key":"a","value_b64":"/w==","time_ms":1}\n\nevent: put\n',
                  "&after=1.5": b'event: delete\nid: 1.7\ndata: {"key":"a","by_expiry":true,"time_ms":2}\n\n'}

        def answer(_: str, path: str, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            return 200, {"Content-Type": "text/event-stream", "Kv-Shard": "s0"}, bodies.get(path[len("/watch?prefix="):], b"")
        with FakeNode(answer) as node:
            own.append(node.address)
            with Client([node.address]) as kv, kv.watch() as watch:
                changes = [watch.next(10), watch.next(10)]
            self.assertEqual([(change.kind, change.position, change.value, change.by_expiry) for change in changes if change],
                             [("put", Position(1, 5), b"\xff", False), ("delete", Position(1, 7), None, True)])

    def test_a_shard_far_behind_kept_the_others_from_beginning(self) -> None:
        """Its changes filled the queue, and the first of another shard had to be in it before that one counted."""
        own: List[str] = []
        many = b"".join(b'event: put\nid: 1.%d\ndata: {"key":"a","value":"1"}\n\n' % seq for seq in range(2, 1_502))

        def answer(_: str, path: str, headers: Any, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(*([node] for node in own))
            shard = own.index(headers["Host"])
            if shard == 1:
                wait_for("the queue is full", lambda: len(sent[0]._queue.queue) == 1_000)
                return 200, {"Kv-Shard": "s1"}, b'event: position\nid: 1.1\ndata: {"position":"1.1"}\n\n'
            return 200, {"Kv-Shard": "s0"}, many if path.endswith("after=1.1") else b""
        sent: List[client_module.Watch] = []
        before = client_module.Watch.__init__

        def noted(watch: client_module.Watch, *given: Any) -> None:
            sent.append(watch)
            before(watch, *given)
        with FakeNode(answer) as node, FakeNode(answer) as other:
            own.extend([node.address, other.address])
            with Client([node.address], timeout=3) as kv, unittest.mock.patch.object(client_module.Watch, "__init__", noted):
                with kv.watch(after={0: Position(1, 1), 1: Position(1, 0)}) as watch:
                    changes = [watch.next(10) for _ in range(1_500)]
            self.assertEqual(changes[-1] and changes[-1].position, Position(1, 1_501))

    def test_looking_for_a_newer_map_passed_the_deadline(self) -> None:
        """An op that looked for one asked every node of the map, a second each, however little time it had."""
        with contextlib.ExitStack() as stack:
            # They take connections and say nothing.
            silent = [stack.enter_context(socket.create_server(("127.0.0.1", free_port()))) for _ in range(5)]
            nodes = [f"127.0.0.1:{one.getsockname()[1]}" for one in silent]
            seed = stack.enter_context(FakeNode(lambda *_: (200, {}, map_of(nodes))))
            kv = stack.enter_context(Client([seed.address], timeout=0.5, attempt_timeout=0.2))
            # As if the last look at the map had been a while ago.
            kv._state._last_refresh = 0.0
            began = time.monotonic()
            self.assertRaises(Unavailable, kv.get, "a")
            self.assertLess(time.monotonic() - began, 1.0)

    def test_a_node_that_drips_kept_an_op_for_ever(self) -> None:
        """Each byte came in time, and no look at the clock stood between them."""
        for head in (b"", b"HTTP/1.1 200 OK\r\nETag: \"1.1\"\r\nContent-Length: 9999\r\n\r\n"):
            with self.subTest(head=head), socket.create_server(("127.0.0.1", free_port())) as listener:
                threading.Thread(target=drip, args=(listener, head), daemon=True).start()
                dripping = f"127.0.0.1:{listener.getsockname()[1]}"
                with FakeNode(lambda *_: (200, {}, map_of([dripping]))) as seed, Client([seed.address], timeout=0.5) as kv:
                    began = time.monotonic()
                    self.assertRaises(Unavailable, kv.get, "a")
                    self.assertLess(time.monotonic() - began, 1.5)

    def test_a_success_of_another_program_read_as_an_absent_key(self) -> None:
        """Whatever answers 200 to everything has no version and no position to tell."""
        own: List[str] = []

        def answer(_: str, path: str, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            return 200, {"Content-Type": "text/html"}, b"<h1>It works!</h1>"
        with FakeNode(answer) as node:
            own.append(node.address)
            with Client([node.address], timeout=0.4) as kv:
                self.assertRaises(Unavailable, kv.get, "a")
                self.assertRaises(Unknown, kv.put, "a", "1")
                self.assertRaises(Unknown, kv.atomic, [{"op": "put", "key": "a", "value": "1"}])
                self.assertRaises(Unavailable, kv.get_many, ["a", "b"])

    def test_a_comment_or_a_bare_cr_in_a_stream_broke_its_events(self) -> None:
        """A comment within an event ended it, and of lines that end in CR alone none was ever seen."""
        event = ["event: put", ": a comment", "id: 1.5", 'data: {"key":"a",', 'data: "value":"1","time_ms":1}', "", ""]
        for end in ("\n", "\r\n", "\r"):
            own: List[str] = []

            def answer(_: str, path: str, *__: Any, own: List[str] = own, end: str = end) -> Tuple[int, Dict[str, str], bytes]:
                if path == "/cluster/map":
                    return 200, {}, map_of(own)
                return 200, {"Kv-Shard": "s0"}, end.join(event).encode()
            with self.subTest(end=end), FakeNode(answer) as node:
                own.append(node.address)
                with Client([node.address], timeout=1) as kv, kv.watch() as watch:
                    change = watch.next(10)
                    self.assertEqual(change and (change.kind, change.value, change.position), ("put", b"1", Position(1, 5)))

    def test_a_line_of_a_watch_had_no_bound(self) -> None:
        own: List[str] = []

        def answer(_: str, path: str, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            return 200, {"Kv-Shard": "s0"}, b"data: " + b"x" * 5_000
        with FakeNode(answer) as node, unittest.mock.patch.object(client_module, "MAX_EVENT_BYTES", 4_000):
            own.append(node.address)
            with Client([node.address], timeout=1) as kv, kv.watch() as watch, self.assertRaises(NotApplied) as raised:
                watch.next(10)
            self.assertEqual(raised.exception.code, "too_large")

    def test_an_address_twice_in_a_map_was_taken(self) -> None:
        for shards in ([["a:1", "a:1"]], [["a:1"], ["a:1"]], [["a:1", "b:1"], ["c:1", "b:1"]]):
            with self.subTest(shards=shards):
                self.assertRaisesRegex(ValueError, "twice", client_module.ShardMap, map_of(*shards))

    @unittest.skipUnless(hasattr(os, "fork"), "this system does not fork")
    def test_a_forked_process_took_the_ids_of_its_parent(self) -> None:
        """Both counted on from the same number, so the node took the child's write for a repeat of the parent's."""
        own: List[str] = []

        def answer(_: str, path: str, *__: Any) -> Tuple[int, Dict[str, str], bytes]:
            if path == "/cluster/map":
                return 200, {}, map_of(own)
            return 204, {"ETag": '"1.1"', "Kv-Position": "1.1", "Kv-Applied": "yes"}, b""
        with FakeNode(answer) as node:
            own.append(node.address)
            with Client([node.address]) as kv:
                kv.put("a", "1")
                child = os.fork()
                if child == 0:
                    with contextlib.suppress(BaseException):
                        kv.put("a", "2")
                        os._exit(0)
                    os._exit(1)
                self.assertEqual(os.waitpid(child, 0)[1], 0)
                # The parent's connection is still its own.
                kv.put("a", "3")
            ids = [headers["Kv-Request-Id"].split(";")[0] for method, _, headers in node.seen if method == "PUT"]
            clients = [one.split(".")[0] for one in ids]
            self.assertEqual(len(set(ids)), 3, ids)
            self.assertEqual(clients[0], clients[2])
            self.assertNotEqual(clients[0], clients[1])

    def test_nobody_answers(self) -> None:
        self.assertRaises(Unavailable, Client, [f"127.0.0.1:{free_port()}"], timeout=0.5)


class WithCluster(unittest.TestCase):
    cluster: Cluster
    kv: Client

    @classmethod
    def setUpClass(cls) -> None:
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.stop)
        cls.kv = Client([random.choice(cls.cluster.nodes)], timeout=10)
        cls.addClassCleanup(cls.kv.close)

    def key(self, shard: int, name: str = "k") -> bytes:
        """A key of that shard, this test's own."""
        made = (f"{self.id()}:{name}:{i}".encode()[-200:] for i in range(10_000))
        return next(key for key in made if self.kv.map.shard_of(key).idx == shard)

    def test_values_of_all_kinds(self) -> None:
        for shard in range(3):
            key = self.key(shard)
            self.assertIsNone(self.kv.get(key))
            self.assertIsNone(self.kv.delete(key))
            for value in (b"Ada", b"", bytes(range(256)), os.urandom(1 << 20)):
                position = self.kv.put(key, value)
                entry = self.kv.get_entry(key)
                assert entry is not None
                self.assertEqual((entry.value, entry.position, entry.ttl_ms), (value, position, None))
            self.assertIsNotNone(self.kv.delete(key))
            self.assertIsNone(self.kv.get(key))

    def test_a_number_is_no_value(self) -> None:
        """It was stored as so many zero bytes, and told as done."""
        key = self.key(0)
        for number in (5, 1.5, None):
            with self.assertRaises(TypeError):
                self.kv.put(key, number)  # type: ignore[arg-type]
        self.assertIsNone(self.kv.get(key))
        self.kv.put(key, bytearray(b"a"))
        self.kv.put(key, memoryview(b"ab"))
        self.assertEqual(self.kv.get(key), b"ab")

    def test_an_address_for_tls_is_not_asked_in_clear(self) -> None:
        node = self.cluster.nodes[0]
        with self.assertRaisesRegex(ValueError, "speaks http"):
            Client([f"https://{node}"], token="secret")
        Client([f"http://{node}"]).close()

    def test_keys_with_every_byte(self) -> None:
        keys = [bytes([byte]) for byte in range(256)] + [b"..", b"a/../b", b"//", b"a//b/", b"%41", b"a b+c?d&e=f#g",
                                                         "\u00e9\u9375".encode(), os.urandom(511), b"\xff" * 511]
        written = self.kv.put_many({key: b"<" + key + b">" for key in keys})
        self.assertEqual(len(written), len(keys))
        for key in keys:
            self.assertEqual(self.kv.get(key), b"<" + key + b">", key)
        self.assertEqual(self.kv.get_many(keys), {key: b"<" + key + b">" for key in keys})
        scanned = {entry.key: entry.value for entry in self.kv.scan()}
        self.assertLessEqual({key: b"<" + key + b">" for key in keys}.items(), scanned.items())
        for key in keys:
            self.assertIsNotNone(self.kv.put(key, b"2", if_exists=True), key)
            self.assertIsNotNone(self.kv.delete(key), key)
        for key in (b"", b"x" * 512):
            self.assertRaises(NotApplied, self.kv.put, key, b"")

    def test_conditions(self) -> None:
        key = self.key(1)
        self.assertRaises(Conflict, self.kv.put, key, "0", if_exists=True)
        first = self.kv.put(key, "1", if_absent=True)
        with self.assertRaises(Conflict) as raised:
            self.kv.put(key, "2", if_absent=True)
        self.assertEqual(raised.exception.position, first)
        second = self.kv.put(key, "3", if_match=first)
        self.assertGreater(second, first)
        for refused in (lambda: self.kv.put(key, "4", if_match=first), lambda: self.kv.delete(key, if_match=first),
                        lambda: self.kv.touch(key, "90s", if_match=first)):
            self.assertRaises(Conflict, refused)
        self.assertEqual(self.kv.get(key), b"3")
        self.assertIsNotNone(self.kv.delete(key, if_match=second))
        with self.assertRaises(Conflict) as raised:
            self.kv.put(key, "5", if_match=second)
        self.assertIsNone(raised.exception.position)

    def test_expiry(self) -> None:
        key = self.key(0)
        self.kv.put(key, "1", ttl="90s")
        self.assertTrue(80_000 < self._ttl(key) <= 90_000)
        self.kv.persist(key)
        self.assertEqual(self._ttl(key), 0)
        self.kv.touch(key, "2h")
        self.assertTrue(7_190_000 < self._ttl(key) <= 7_200_000)
        self.kv.put(key, "2")
        self.assertEqual(self._ttl(key), 0)
        self.kv.touch(key, "1ms")
        wait_for("it expires", lambda: self.kv.get(key) is None)
        self.assertRaises(NotFound, self.kv.touch, key, "1s")
        self.assertRaises(NotFound, self.kv.persist, key)
        for bad in ("0s", "1", "1y", "-1s"):
            with self.assertRaises(NotApplied) as raised:
                self.kv.put(key, "1", ttl=bad)
            self.assertEqual(raised.exception.code, "bad_parameter")

    def _ttl(self, key: bytes) -> int:
        entry = self.kv.get_entry(key)
        assert entry is not None
        return entry.ttl_ms or 0

    def test_counters(self) -> None:
        key = self.key(2)
        self.assertEqual([self.kv.incr(key, 5), self.kv.incr(key, -7), self.kv.incr(key)], [5, -2, -1])
        self.kv.put(key, str(2 ** 63 - 1))
        for code, prepare in (("overflow", None), ("not_a_number", "many")):
            if prepare:
                self.kv.put(key, prepare)
            with self.assertRaises(NotApplied) as raised:
                self.kv.incr(key)
            self.assertEqual(raised.exception.code, code)

    def test_many_threads_share_a_client_and_lose_no_step(self) -> None:
        key = self.key(0)
        threads = [threading.Thread(target=lambda: [self.kv.incr(key) for _ in range(20)]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.kv.get(key), b"120")

    def test_many_keys_at_once(self) -> None:
        items = {f"many:{i}".encode(): os.urandom(i % 300) for i in range(2_500)}
        written = self.kv.put_many(items, ttl="1h")
        self.assertEqual(written.keys(), items.keys())
        found = self.kv.get_many([*items, b"many:absent"])
        self.assertIsNone(found.pop(b"many:absent"))
        self.assertEqual(found, items)
        # Together they are larger than any one batch, and than the values that an answer may have: 32 MiB.
        large = {self.key(1, f"large{i}"): os.urandom(1 << 20) for i in range(34)}
        self.kv.put_many(large)
        self.assertEqual(self.kv.get_many(large), large)

    def test_of_many_each_says_what_became_of_it(self) -> None:
        good, bad = self.key(0), self.key(1)
        with self.assertRaises(ManyFailed) as raised:
            self.kv.put_many({good: b"1", bad: bytes((1 << 20) + 1)})
        self.assertEqual(list(raised.exception.done), [good])
        self.assertEqual(raised.exception.errors[bad].code, "too_large")
        self.assertIsInstance(raised.exception.errors[bad], NotApplied)

    def test_atomic(self) -> None:
        a, b = b"{atomic:1}:a", b"{atomic:1}:\xff"
        results = self.kv.atomic([{"op": "put", "key": a, "value": b"1", "if_none_match": "*"},
                                  {"op": "incr", "key": b, "delta": 4}, {"op": "get", "key": a}])
        self.assertEqual([(result.status, result.value) for result in results], [(204, b""), (200, b"4"), (200, b"1")])
        with self.assertRaises(Conflict) as raised:
            self.kv.atomic([{"op": "incr", "key": b, "delta": 1}, {"op": "put", "key": a, "value": b"2", "if_none_match": "*"}])
        self.assertIn("op 2", str(raised.exception))
        self.assertEqual(self.kv.get_many([a, b]), {a: b"1", b: b"4"})
        self.assertEqual(self.kv.atomic([]), [])

    def test_atomic_over_slots_is_refused(self) -> None:
        a, b = self.key(0, "a"), self.key(0, "b")
        self.assertNotEqual(slot_of(a), slot_of(b))
        with self.assertRaises(NotApplied) as raised:
            self.kv.atomic([{"op": "put", "key": a, "value": "1"}, {"op": "put", "key": b, "value": "1"}])
        self.assertEqual(raised.exception.code, "cross_slot")
        self.assertEqual(self.kv.get_many([a, b]), {a: None, b: None})

    def test_a_scan_is_over_all_shards_in_key_order(self) -> None:
        keys = sorted(f"scan:{i:03}".encode() for i in range(120)) + [b"scan:\xff\x00"]
        self.kv.put_many({key: b"v" + key for key in keys})
        self.assertEqual({self.kv.map.shard_of(key).idx for key in keys}, {0, 1, 2})
        found = list(self.kv.scan("scan:", page=7))
        self.assertEqual([(entry.key, entry.value) for entry in found], [(key, b"v" + key) for key in keys])
        self.assertEqual([entry.key for entry in self.kv.scan("scan:", page=7, reverse=True, keys_only=True)], keys[::-1])
        self.assertEqual([entry.key for entry in self.kv.scan("scan:", limit=10)], keys[:10])
        self.assertEqual([entry.key for entry in self.kv.scan(start="scan:050", end="scan:060")], keys[50:60])
        self.assertEqual(list(self.kv.scan("nothing:")), [])

    def test_error_codes(self) -> None:
        key = self.key(1)
        node, replica, other = self.cluster.primaries[1], self.cluster.replicas[1], self.cluster.primaries[2]
        path = "/kv/" + key.decode()
        ndjson = {"Content-Type": "application/x-ndjson"}
        reused = {"Kv-Request-Id": "11111111-2222-4333-8444-555555555555.7"}
        expired = {"Kv-Request-Id": "11111111-2222-4333-8444-555555555555.6;floor=7"}
        self.assertEqual(ask(node, "PUT", path, b"1", reused).status, 204)
        epoch = ask(node, "GET", path).headers["Kv-Position"].split(".")[0]
        cases = [
            (404, "not_found", ask(node, "GET", "/kv/" + self.key(1, "absent").decode())),
            (404, "no_such_path", ask(node, "GET", "/nothing")),
            (405, "method_not_allowed", ask(node, "PATCH", path)),
            (400, "bad_escape", ask(node, "GET", "/kv/%zz")),
            (400, "bad_parameter", ask(node, "GET", path + "?wrong=1")),
            (400, "bad_parameter", ask(node, "PUT", path + "?ttl=1s&ttl=1s", b"")),
            (400, "key_empty", ask(node, "GET", "/kv/")),
            (414, "key_too_long", ask(node, "GET", "/kv/" + "x" * 512)),
            (413, "too_large", ask(node, "PUT", path, bytes((1 << 20) + 1))),
            (412, "precondition_failed", ask(node, "PUT", path, b"", {"If-None-Match": "*"})),
            (422, "request_id_reused", ask(node, "PUT", path, b"2", reused)),
            (504, "request_id_expired", ask(node, "PUT", path, b"1", expired)),
            (503, "too_few_replicas", ask(node, "PUT", path, b"1", {"Kv-Ack": "2"})),
            (403, "read_only_replica", ask(replica, "PUT", path, b"1")),
            (503, "behind", ask(node, "GET", path, None, {"Kv-Min-Position": f"{epoch}.999999999"})),
            (410, "position_lost", ask(node, "GET", path, None, {"Kv-Min-Position": "0.1"})),
            (410, "position_lost", ask(node, "GET", "/watch?after=0.1")),
            (421, "unknown_host", ask(node, "GET", path, None, {"Host": "evil.example"})),
            (403, "forbidden", ask(node, "PUT", path, b"1", {"Origin": "http://evil.example"})),
            (431, "head_too_large", ask(node, "GET", path, None, {"X-Large": "x" * 17_000})),
            (415, "unsupported_media_type", ask(node, "POST", "/batch", lines({"op": "get", "key": "a"}))),
            (400, "malformed_batch", ask(node, "POST", "/batch", b'{"op":"get"}', ndjson)),
        ]
        for status, code, answer in cases:
            with self.subTest(code=code):
                self.assertEqual((answer.status, answer.error), (status, code))
        self.assertEqual(ask(other, "GET", path).status, 307)

    def test_the_frames_of_the_protocol_page_are_understood(self) -> None:
        blocks = [block.split() for block in re.findall(r"```text\n(4b56[0-9a-f \n]+)```", PAGE)]
        request, answer, scanned = ("".join(block) for block in blocks)
        # Positions, and what is left of a ttl, are those of another day.
        def like(shown: str) -> "re.Pattern[str]":
            shown = shown.replace("010000000900000000000000", "." * 24)
            return re.compile(re.sub("[0-9a-f]{4}010000000000", "." * 16, shown))
        node = self.cluster.primaries[0]
        frames = "application/x-kv-frames"
        got = ask(node, "POST", "/batch", bytes.fromhex(request), {"Content-Type": frames})
        self.assertEqual((got.status, got.headers["Content-Type"]), (200, frames))
        self.assertRegex(got.body.hex(), like(answer))
        self.assertEqual(self.kv.get("user:1", primary=True), b"Ada")
        got = ask(node, "GET", "/kv?prefix=user:1&limit=1", None, {"Accept": frames})
        self.assertRegex(got.body.hex(), like(scanned))

    def test_a_write_that_nobody_waits_for_is_not_done(self) -> None:
        key = self.key(0)
        op = {"op": "put", "key": key.decode(), "value": "1", "time_left_ms": 0}
        got = ask(self.cluster.primaries[0], "POST", "/batch", lines(op), {"Content-Type": "application/x-ndjson"})
        result = json.loads(got.body)
        self.assertEqual((result["status"], result["error"], result["applied"]), (504, "deadline_exceeded", "no"))
        self.assertIsNone(self.kv.get(key, primary=True))

    def test_a_write_to_a_wrong_node_is_redirected(self) -> None:
        key = self.key(1)
        path = "/kv/" + key.decode() + "?ttl=90s"
        for wrong in (self.cluster.primaries[2], self.cluster.replicas[0]):
            answer = ask(wrong, "PUT", path, b"1")
            self.assertEqual((answer.status, answer.headers["Kv-Applied"]), (307, "no"))
            self.assertEqual(answer.headers["Location"], f"http://{self.cluster.primaries[1]}{path}")
        self.assertIsNone(self.kv.get(key, primary=True))
        # The client follows, alone and in a batch: it is made to start at the wrong node.
        for many in (False, True):
            keys = [self.key(1, f"{many}{i}") for i in range(3 if many else 1)]
            ops = [self.kv._op("put", one, value=b"2") for one in keys]
            for op in ops:
                op.target = self.cluster.primaries[2]
            for result in self.kv._run(ops, batch=many):
                self.assertEqual(getattr(result, "status", result), 204)
            self.assertEqual(self.kv.get_many(keys), {one: b"2" for one in keys})
        at_replica = self.kv._op("put", key, value=b"3")
        at_replica.target = self.cluster.replicas[1]
        self.assertEqual(self.kv._do(at_replica).status, 204)
        self.assertEqual(self.kv.get(key), b"3")

    def test_who_has_written_reads_it_on_any_node(self) -> None:
        key = self.key(2)
        asked: Set[str] = set()
        attempt = self.kv._attempt

        def noting(node: str, *rest: Any) -> Any:
            asked.add(node)
            return attempt(node, *rest)
        kv = self.kv.with_session(Session())
        kv._attempt = noting  # type: ignore[method-assign]
        for i in range(60):
            kv.put(key, str(i))
            self.assertEqual(kv.get(key), str(i).encode())
        self.assertEqual(asked, {self.cluster.primaries[2], self.cluster.replicas[2]})
        # Resumed elsewhere by its token it sees as much; a replica that stands still says that it is behind.
        with Client([self.cluster.primaries[0]]) as elsewhere:
            resumed = elsewhere.with_session(Session.from_token(kv.session.token()))
            for _ in range(10):
                self.assertEqual(resumed.get(key), b"59")

    def test_reads_go_on_without_the_primary_and_without_the_replica(self) -> None:
        key = self.key(1)
        position = self.kv.put(key, "1", ack="all")
        self.assertEqual(self.kv.get(key, max_lag_ms=60_000), b"1")
        for node in (self.cluster.primaries[1], self.cluster.replicas[1]):
            self.cluster.send(node, signal.SIGSTOP)
            try:
                for _ in range(2):
                    self.assertEqual(self.kv.get_entry(key), client_module.Entry(key, b"1", position, None))
            finally:
                self.cluster.send(node, signal.SIGCONT)

    def test_a_write_whose_answer_is_lost_is_done_once(self) -> None:
        key = self.key(0)
        before = self.cluster.proxy.was_cut
        for i in range(1, 4):
            self.cluster.proxy.cut_answers(i)
            self.assertEqual(self.kv.incr(key, 5), 5 * i)
        # In a batch, and as an atomic one.
        self.cluster.proxy.cut_answers(1)
        keys = [self.key(0, f"lost{i}") for i in range(5)]
        self.assertEqual(len(self.kv.put_many({one: b"1" for one in keys})), 5)
        tag = next(tag for tag in (f"t{i}" for i in range(100)) if self.kv.map.shard_of(tag.encode()).idx == 0)
        self.cluster.proxy.cut_answers(1)
        done = self.kv.atomic([{"op": "incr", "key": f"{{{tag}}}:lost", "delta": 2},
                               {"op": "put", "key": f"{{{tag}}}:x", "value": "1"}])
        self.assertEqual(done[0].value, b"2")
        self.assertEqual(self.kv.get(f"{{{tag}}}:lost", primary=True), b"2")
        self.assertEqual(self.kv.get(key, primary=True), b"15")
        self.assertEqual(self.cluster.proxy.was_cut - before, 1 + 2 + 3 + 1 + 1)

    def test_a_write_whose_answer_never_comes_is_unknown_and_was_done_once(self) -> None:
        key = self.key(0)
        self.cluster.proxy.cut_answers(1_000)
        hasty = Client([self.cluster.primaries[1]], timeout=0.6)
        try:
            self.assertRaises(Unknown, hasty.incr, key, 5)
        finally:
            self.cluster.proxy.cut_answers(0)
            hasty.close()
        self.assertEqual(self.kv.get(key, primary=True), b"5")

    def test_a_write_waits_out_a_restart_of_the_primary(self) -> None:
        key, node = self.key(2), self.cluster.primaries[2]
        self.kv.put(key, "1")
        self.cluster.end(node, signal.SIGKILL)
        threading.Timer(0.2, self.cluster.start, [node]).start()
        position = self.kv.put(key, "2")
        self.assertEqual(self.kv.get_entry(key), client_module.Entry(key, b"2", position, None))
        self.cluster.wait_ready(node)

    def test_a_watch_goes_on_over_a_restart_without_gap_or_repeat(self) -> None:
        of_shard1 = [self.cluster.primaries[1], self.cluster.replicas[1]]
        written: List[Tuple[bytes, bytes]] = []

        def write(count: int) -> None:
            for _ in range(count):
                i = len(written)
                key, value = f"watch:{i}".encode(), b"\xff%d" % i
                self.kv.put(key, value)
                written.append((key, value))
        seen: List[client_module.Change] = []
        with self.kv.watch() as watch:
            self.assertIsNone(watch.next(timeout=0.1))
            began = dict(watch.positions)
        self.assertEqual(began.keys(), {0, 1, 2})
        with self.kv.watch("watch:", after=began) as watch:
            def take(count: int) -> None:
                until = time.monotonic() + 15
                while len(seen) < count and time.monotonic() < until:
                    change = watch.next(timeout=0.1)
                    seen.extend([change] if change else [])
            write(30)
            take(10)
            # One after the other; then both at once, and what is written next comes before the watch is back.
            for stopped in ([of_shard1[0]], [of_shard1[1]], of_shard1):
                for node in stopped:
                    self.cluster.end(node, signal.SIGTERM)
                for node in stopped:
                    self.cluster.start(node)
                write(15)
                for node in stopped:
                    self.cluster.wait_ready(node)
            take(60)
            positions = dict(watch.positions)
        # Another one goes on where that one was left, with nothing in between lost.
        write(5)
        with self.kv.watch("watch:", after=positions) as watch:
            take(len(written))
            self.kv.delete(written[0][0])
            take(len(written) + 1)
        last = seen.pop()
        self.assertEqual((last.kind, last.key, last.by_expiry), ("delete", written[0][0], False))
        self.assertEqual(sorted((change.key, change.value) for change in seen), sorted(written))
        for idx in range(3):
            of_shard = [change.position for change in seen if change.shard == idx]
            self.assertEqual(of_shard, sorted(set(of_shard)))

    def test_the_command_line(self) -> None:
        def run(*arguments: str) -> Tuple[int, bytes]:
            done = subprocess.run([sys.executable, str(HERE / "kv.py"), "--node", self.cluster.replicas[0], *arguments],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
            return done.returncode, done.stdout
        self.assertEqual(run("get", "shell:1"), (1, b""))
        self.assertEqual(run("put", "shell:1", "Ada", "--if-absent")[0], 0)
        self.assertEqual(run("put", "shell:1", "Bob", "--if-absent")[0], 2)
        self.assertEqual(run("get", "shell:1"), (0, b"Ada"))
        self.assertEqual(run("scan", "shell:"), (0, b"shell:1\tAda\n"))
        self.assertEqual(run("incr", "shell:2", "-3"), (0, b"-3\n"))
        self.assertEqual(run("delete", "shell:1"), (0, b""))


class WithTokens(unittest.TestCase):
    """Against a node that asks who one is."""

    SCOPES = {"reader": ["read"], "app": ["read", "write"]}

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="kv-python-")
        self.addCleanup(directory.cleanup)
        root = pathlib.Path(directory.name)
        self.node = f"127.0.0.1:{free_port()}"
        (root / "map.toml").write_text(f'[[shards]]\nname = "all"\nidx = 0\naddress = "{self.node}"\n')
        tokens = root / "tokens.toml"
        tokens.touch(mode=0o600)
        tokens.write_text("".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(self.token(name).encode()).hexdigest()}"\n'
            f'scopes = {json.dumps(scopes)}\n' for name, scopes in self.SCOPES.items()))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("KVNODE_")}
        process = subprocess.Popen(
            [NODE, "--config", str(root / "map.toml"), "--address", self.node, "--data", str(root / "data"), "--workers", "1",
             "--log-segment-size", "8MiB", "--tokens", str(tokens)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=plain)
        self.addCleanup(process.wait, 15)
        self.addCleanup(process.terminate)

        def is_ready() -> bool:
            try:
                return ask(self.node, "GET", "/readyz").status == 200
            except OSError:
                return False
        wait_for("the node is ready", is_ready)

    @staticmethod
    def token(name: str) -> str:
        return f"kv_{name}-in-python"

    def test_who_has_a_token_may_do_what_it_says(self) -> None:
        with Client([self.node], token=self.token("app")) as kv:
            kv.put("a", "1")
            self.assertEqual(kv.incr("n", 2), 2)
            self.assertEqual(kv.get_many(["a", "b"]), {b"a": b"1", b"b": None})
            self.assertEqual([entry.key for entry in kv.scan()], [b"a", b"n"])
        with Client([self.node], token=self.token("reader")) as kv:
            self.assertEqual(kv.get("a"), b"1")
            with self.assertRaises(Denied) as raised:
                kv.put("a", "2")
            self.assertEqual(raised.exception.code, "forbidden_scope")
            self.assertEqual(kv.get("a"), b"1")

    def test_who_has_none_is_told_so(self) -> None:
        for token in (None, self.token("nobody")):
            begun = time.monotonic()
            with self.assertRaises(Denied) as raised:
                Client([self.node], token=token)
            self.assertEqual(raised.exception.code, "unauthorized")
            self.assertLess(time.monotonic() - begun, 4)
            self.assertNotIn("nobody", str(raised.exception))

    def test_the_command_line_takes_it_from_the_environment(self) -> None:
        def run(*arguments: str, **more: str) -> Tuple[int, bytes]:
            plain = {name: value for name, value in os.environ.items() if name != "KV_TOKEN"}
            done = subprocess.run([sys.executable, str(HERE / "kv.py"), "--node", self.node, *arguments], env={**plain, **more},
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
            return done.returncode, done.stdout
        self.assertEqual(run("put", "a", "1", KV_TOKEN=self.token("app"))[0], 0)
        self.assertEqual(run("get", "a", KV_TOKEN=self.token("reader")), (0, b"1"))
        self.assertEqual(run("get", "a")[0], 2)


if __name__ == "__main__":
    unittest.main()
