"""A server on this machine that speaks as the Hugging Face Hub and torchvision's do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c0ffee"


class Hub:
    """Answers downloads of `files`, and takes what huggingface_hub uploads (without Xet) into them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        """Content by path, `/<owner>/<name>/resolve/<commit>/<file>` for a repository's."""
        self.requests: list[str] = []
        self.tokens: list[str | None] = []
        """What each request said of who asks."""
        self.stated: str | None = None
        """The SHA-256 to state for every file, in the place of its own."""
        self.needed: str | None = None
        """The token that everything needs."""
        self.created: list[dict[str, Any]] = []
        self.branches: list[str] = []
        self.messages: list[str] = []
        self.taken: dict[str, bytes] = {}
        """Large files by SHA-256, before a commit says where they belong."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def repository(self, name: str, **files: object) -> None:
        """Let there be a repository with a `model` (`model.safetensors`) and other files, in JSON."""
        for file, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            file = "model.safetensors" if file == "model" else f"{file}.json"
            self.files[f"/{name}/resolve/{COMMIT}/{file}"] = data

    def found(self, path: str) -> bytes | None:
        """Return the file that a branch or the commit has at `path`."""
        return self.files.get(re.sub(r"/resolve/[^/]+/", f"/resolve/{COMMIT}/", path.partition("?")[0]))

    def sha256(self, content: bytes) -> str:
        """Return the SHA-256 to state."""
        return self.stated or hashlib.sha256(content).hexdigest()

    def post(self, path: str, body: bytes) -> tuple[int, object]:
        """Return the answer to what huggingface_hub posts."""
        if match := re.fullmatch(r"/api/models/(.+)/commit/[^/]+", path):
            return 200, self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        said = json.loads(body)
        if path == "/api/repos/create":
            self.created.append(said)
            return 200, {"url": f"{self.url}/{said['organization'] or 'anna'}/{said['name']}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/api/models/.+/branch/([^/]+)", path):
            self.branches.append(match[1])
            return 200, {}
        if re.fullmatch(r"/api/models/.+/preupload/[^/]+", path):
            modes = {True: "lfs", False: "regular"}
            names = [file["path"] for file in said["files"]]
            listed = [(name, modes[name.endswith(".safetensors")]) for name in names]
            return 200, {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in listed]}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/upload/{one['oid']}"}}}
                for one in said["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        return 404, {}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> object:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                self.files[f"/{name}/resolve/{COMMIT}/{value['path']}"] = base64.b64decode(value["content"])
            else:
                self.files[f"/{name}/resolve/{COMMIT}/{value['path']}"] = self.taken[value["oid"]]
        return {"commitUrl": f"{self.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if self._known("HEAD"):
                return
            found = hub.found(self.path)
            large = found is not None and not self.path.endswith((".json", ".md"))
            headers = {"X-Repo-Commit": COMMIT}
            if found is None:
                headers["X-Error-Code"] = "EntryNotFound"
            elif large:
                headers |= {"X-Linked-Etag": f'"{hub.sha256(found)}"', "Location": "http://127.0.0.1:9/storage"}
            else:
                headers |= {"ETag": f'"{hashlib.sha1(found).hexdigest()}"', "Content-Length": str(len(found))}
            self._answer(404 if found is None else 302 if large else 200, headers)

        def do_GET(self) -> None:
            if self._known("GET"):
                return
            found = hub.found(self.path)
            self._answer(200 if found is not None else 404, {}, found or b"")

        def do_POST(self) -> None:
            body = self._content()
            if self._known("POST"):
                return
            status, said = hub.post(self.path.partition("?")[0], body)
            self._answer(status, {"Content-Type": "application/json"}, json.dumps(said).encode())

        def do_PUT(self) -> None:
            hub.requests.append(f"PUT {self.path}")
            content = self._content()
            hub.taken[hashlib.sha256(content).hexdigest()] = content
            self._answer(200, {})

        def _content(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def _known(self, method: str) -> bool:
            """Note the request; return whether it was refused."""
            hub.requests.append(f"{method} {self.path}")
            hub.tokens.append(self.headers.get("Authorization"))
            if hub.needed is None or hub.tokens[-1] == f"Bearer {hub.needed}":
                return False
            self._answer(401, {"X-Error-Message": "Invalid credentials"})
            return True

        def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    return Handler
