"""A bucket without a cloud: the part of Google Cloud Storage's JSON API that is used, on loopback.

    with fake_gcs.serve() as bucket:
        os.environ |= bucket.environment  # for gcsfs, google-cloud-storage and tensorstore
        ...  # gs://fake/anything
        bucket.objects["anything"].data

Objects lie in memory. `bucket.fails` makes every request fail as an overloaded service does.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

NAME = "fake"
_PAGE = 100  # names in one answer; a thousand in the real one


@dataclasses.dataclass
class Object:
    data: bytes
    generation: int
    metageneration: int = 1
    metadata: dict = dataclasses.field(default_factory=dict)


class Bucket:
    """The bucket's contents and its switches."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, tuple[str, dict, bytearray]] = {}
        self.lock = threading.Lock()
        self.count = 0
        self.fails = False
        self.requests: list[str] = []  # "METHOD path?query", as they came
        self.url = ""

    @property
    def environment(self) -> dict[str, str]:
        """What makes the libraries come here, without credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "anybody",
            "GOOGLE_CLOUD_PROJECT": "fake",
            "NO_GCE_CHECK": "true",
        }

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.objects if name.startswith(prefix))

    def put(self, name: str, data: bytes, query: dict, metadata: dict | None = None) -> Object:
        old = self.objects.get(name)
        _match(old, query)
        self.count += 1
        self.objects[name] = new = Object(data, self.count, metadata=metadata or {})
        return new


class _Precondition(Exception):
    pass


def _match(found: Object | None, query: dict) -> None:
    wanted = query.get("ifGenerationMatch")
    if wanted is not None and int(wanted) != (found.generation if found else 0):
        raise _Precondition


def _about(name: str, found: Object) -> dict:
    return {
        "kind": "storage#object",
        "bucket": NAME,
        "name": name,
        "size": str(len(found.data)),
        "generation": str(found.generation),
        "metageneration": str(found.metageneration),
        "md5Hash": base64.b64encode(hashlib.md5(found.data).digest()).decode(),
        "metadata": found.metadata,
        "updated": "2026-01-01T00:00:00.000Z",
        "timeCreated": "2026-01-01T00:00:00.000Z",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_) -> None:
        pass

    def _answer(self, status: int, body: bytes | dict = b"", headers: dict | None = None) -> None:
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # asked twice, and content with the other answer
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _handle(self) -> None:
        body = self._body()
        split = urlsplit(self.path)
        query = dict(parse_qsl(split.query))
        bucket = self.bucket
        bucket.requests.append(f"{self.command} {unquote(self.path)}")
        if bucket.fails:
            return self._answer(503, {"error": {"code": 503, "message": "overloaded"}})
        with bucket.lock:
            try:
                if split.path.startswith("/upload/"):
                    self._upload(body, query)
                elif found := re.fullmatch(
                    r"(?:/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?/?", split.path
                ):
                    if found[1] != NAME:
                        self._answer(404, {"error": {"code": 404, "message": "no such bucket"}})
                    elif found[2]:
                        self._object(unquote(found[2]), found[2], body, query)
                    elif "/o" in split.path:
                        self._list(query)
                    else:
                        self._answer(200, {"kind": "storage#bucket", "name": NAME, "id": NAME})
                else:
                    self._answer(400, {"error": {"code": 400, "message": f"no {self.path}"}})
            except _Precondition:
                self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _upload(self, body: bytes, query: dict) -> None:
        kind = query["uploadType"]
        if "upload_id" in query:
            name, asked, data = self.bucket.uploads[query["upload_id"]]
            if self.command == "DELETE":
                return self._answer(499)
            data += body
            total = self.headers["Content-Range"].rpartition("/")[2]
            if total == "*" or len(data) < int(total):
                return self._answer(308, headers={"Range": f"bytes=0-{len(data) - 1}"})
            new = self.bucket.put(name, bytes(data), asked)
        elif kind == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            upload = str(len(self.bucket.uploads))
            self.bucket.uploads[upload] = name, query, bytearray()
            where = f"{self.bucket.url}/upload/storage/v1/b/{NAME}/o?uploadType=resumable"
            return self._answer(200, headers={"Location": f"{where}&upload_id={upload}"})
        elif kind == "multipart":
            mark = b"--" + re.search('boundary="?([^"]+)', self.headers["Content-Type"])[1].encode()
            _, about, rest = body.split(mark, 2)
            about = json.loads(re.split(rb"\r?\n\r?\n", about, maxsplit=1)[1])
            data = re.split(rb"\r?\n\r?\n", rest, maxsplit=1)[1].rpartition(mark + b"--")[0]
            name = about["name"]
            data = data.removesuffix(b"\n").removesuffix(b"\r")
            new = self.bucket.put(name, data, query, about.get("metadata"))
        else:
            name = query["name"]
            new = self.bucket.put(name, body, query)
        self._answer(200, _about(name, new))

    def _object(self, name: str, quoted: str, body: bytes, query: dict) -> None:
        objects = self.bucket.objects
        if copy := re.fullmatch(r"(.+)/(?:copyTo|rewriteTo)/b/[^/]+/o/(.+)", quoted):
            source, target = map(unquote, copy.groups())
            if source not in objects:
                return self._missing(source)
            new = self.bucket.put(target, objects[source].data, query)
            return self._answer(200, {"done": True, "resource": _about(target, new)})
        found = objects.get(name)
        if found is None:
            return self._missing(name)
        _match(found, query)
        if self.command == "DELETE":
            del objects[name]
            return self._answer(204)
        if self.command == "PATCH":
            found.metadata |= json.loads(body).get("metadata") or {}
            found.metageneration += 1
        elif query.get("alt") == "media":
            headers = {"x-goog-generation": str(found.generation)}
            if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(part[1]), int(part[2] or len(found.data))
                if first >= len(found.data):
                    return self._answer(416)
                data = found.data[first : last + 1]
                where = f"bytes {first}-{first + len(data) - 1}/{len(found.data)}"
                return self._answer(206, data, headers | {"Content-Range": where})
            return self._answer(200, found.data, headers)
        return self._answer(200, _about(name, found))

    def _missing(self, name: str) -> None:
        self._answer(404, {"error": {"code": 404, "message": f"No such object: {name}"}})

    def _list(self, query: dict) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        after, end = query.get("pageToken", ""), query.get("endOffset")
        items, folders = [], set()
        for name in self.bucket.names(prefix):
            if name < query.get("startOffset", "") or (end and name >= end):
                continue
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(name)
        entries = sorted([*items, *folders])
        entries = [entry for entry in entries if entry > after]
        page = entries[: min(_PAGE, int(query.get("maxResults", _PAGE)))]
        answer = {
            "kind": "storage#objects",
            "items": [_about(n, self.bucket.objects[n]) for n in page if n not in folders],
            "prefixes": [n for n in page if n in folders],
        }
        if len(page) < len(entries):
            answer["nextPageToken"] = page[-1]
        self._answer(200, answer)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address) -> None:
        """Says nothing of a client that hangs up, as one that is killed does."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serve() -> Iterator[Bucket]:
    """An empty bucket `fake`, as long as the block lasts."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    with _Server(("127.0.0.1", 0), handler) as server:
        bucket.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield bucket
        finally:
            server.shutdown()
            thread.join()
