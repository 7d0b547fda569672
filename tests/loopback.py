"""A folder behind an address on the loopback interface."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


class Server(ThreadingHTTPServer):
    """Serves a folder, and can be told to fail: `failing` answers are 503, those after them are right."""

    failing = 0
    requests = 0
    daemon_threads = True
    address = ""


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requests += 1
        if self.server.failing > 0:
            self.server.failing -= 1
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


class CloudHandler(Handler):
    """What reading takes of Google Cloud Storage; the folders of the server are its buckets."""

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        match = re.fullmatch(r"(/download)?/storage/v1/b/([^/]+)/o/([^/]+)", place.path)
        if match is None:
            bucket = place.path.removeprefix("/storage/v1/b/").removesuffix("/o")
            self.answer(self.listed(bucket, parse_qs(place.query).get("prefix", [""])[0]))
        elif match[1]:
            self.path = f"/{match[2]}/{unquote(match[3])}"
            super().do_GET()
        elif Path(file := self.translate_path(f"/{match[2]}/{unquote(match[3])}")).is_file():
            self.answer(self.about(match[2], unquote(match[3]), Path(file)))
        else:
            self.send_error(404)

    def listed(self, bucket: str, prefix: str) -> object:
        root = Path(self.translate_path(f"/{bucket}"))
        names = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}
        return {"items": [self.about(bucket, name, file) for name, file in names.items() if name.startswith(prefix)]}

    def about(self, bucket: str, name: str, file: Path) -> object:
        return {"kind": "storage#object", "bucket": bucket, "name": name, "size": str(file.stat().st_size)}

    def answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(folder: Path, handler: type[Handler] = Handler) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
