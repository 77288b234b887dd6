"""A small server with the part of the Hub's API that its client uses: downloads of revisions, commits, and LFS."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

TOKEN = "hf_fake"


@dataclass
class Repository:
    """Its commits, newest last, each the content of all files by name; and its branches and tags."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], ref: str = "main", message: str = "first") -> str:
        content = {**self.commits.get(self.refs.get(ref, ""), {}), **files}
        names = json.dumps([ref, len(self.commits), sorted(content)])
        commit = hashlib.sha1(names.encode()).hexdigest()
        self.commits[commit], self.refs[ref], self.messages[commit] = content, commit, message
        return commit

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


class FakeHub:
    """Runs the server in a thread; `requests` has every request, as `METHOD path`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.status: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> str:
        self.repositories[name] = Repository(**options)
        return self.repositories[name].commit(files)

    def downloads(self) -> list[str]:
        """The names of the files whose content was sent."""
        return [r.rpartition("/")[2] for r in self.requests if r.startswith("GET ") and "/resolve/" in r]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, content: object = None, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_request(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.status is not None:
            return self.answer(self.hub.status, {"error": "down"})
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                return method(self, body, **match.groupdict())
        return self.answer(404, {"error": f"no route for {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    @property
    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name: str) -> Repository | None:
        """The repository, or None after an answer as the Hub's."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.is_known):
            self.answer(401, {"error": "no"}, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return None
        if found.gated and not self.is_known:
            self.answer(403, {"error": "no"}, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
            return None
        return found

    def commit_of(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        found = self.repository(name)
        if found is None:
            return None
        commit = found.resolve(revision)
        if commit is None:
            self.answer(404, {"error": "no"}, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            return None
        return commit, found.commits[commit]

    # Reading

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        found = self.commit_of(name, revision or "main")
        if found is not None:
            self.answer(200, {"id": name, "sha": found[0], "siblings": [{"rfilename": file} for file in found[1]]})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        found = self.commit_of(name, revision)
        if found is not None:
            rows = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in found[1].items()
            ]
            self.answer(200, rows)

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        found = self.commit_of(name, revision)
        if found is None:
            return
        commit, files = found
        if file not in files:
            self.answer(404, {"error": "no"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        self.answer(200, files[file], ETag=f'"{hashlib.sha256(files[file]).hexdigest()}"', X_Repo_Commit=commit)

    # Writing

    def may_write(self) -> bool:
        if not self.is_known:
            self.answer(401, {"error": "Invalid credentials"})
        return self.is_known

    def create(self, body: bytes) -> None:
        if not self.may_write():
            return
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.hub.repositories:
            return self.answer(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
        self.hub.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        self.hub.repositories[name].commit({".gitattributes": b""})
        return self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        if not self.may_write():
            return
        refs = self.hub.repositories[name].refs
        if branch in refs:
            return self.answer(409, {"error": "exists"})
        refs[branch] = refs["main"]
        return self.answer(200, {})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self.may_write():
            modes = {True: "lfs", False: "regular"}
            files = [
                {
                    "path": file["path"],
                    "uploadMode": modes[file["path"].endswith(".safetensors")],
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})

    def lfs_batch(self, body: bytes, name: str) -> None:
        if not self.may_write():
            return
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.stored[oid] = body
        self.answer(200, {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if not self.may_write():
            return
        files, message = {}, ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commit = self.hub.repositories[name].commit(files, revision, message)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def valid_yaml(self, body: bytes) -> None:
        self.answer(200, {"errors": [], "warnings": []})


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_ROUTES = (
    (rf"GET /api/models/{_NAME}(/revision/(?P<revision>.+))?", _Handler.info),
    (rf"GET /api/models/{_NAME}/tree/(?P<revision>[^/]+)/?", _Handler.tree),
    (rf"(GET|HEAD) /{_NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.resolve),
    ("POST /api/repos/create", _Handler.create),
    (rf"POST /api/models/{_NAME}/branch/(?P<branch>.+)", _Handler.branch),
    (rf"POST /api/models/{_NAME}/preupload/(?P<revision>.+)", _Handler.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"PUT /lfs/(?P<oid>\w+)", _Handler.lfs_put),
    (rf"POST /api/models/{_NAME}/commit/(?P<revision>.+)", _Handler.commit),
    ("POST /api/validate-yaml", _Handler.valid_yaml),
)
