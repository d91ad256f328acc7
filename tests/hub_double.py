"""A double of the Hub on loopback: the endpoints that huggingface_hub uploads to and reads from, on plain files.

    with HubDouble(tmp_path) as hub:
        ...  # HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_XET=1
        hub.files("dataset", "me/savenvid")

Commits are kept whole, content by its sha256. Whoever writes needs the token `TOKEN`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


TOKEN = "hf_loopback"
_LFS = (".parquet", ".safetensors", ".mp4")


class HubDouble:
    """The server, and what it holds.

    Attributes:
        endpoint: its address.
        repos: by (type, id), the commits: {"sha", "message", "files": {name: sha256}}.
        requests: "METHOD path" of all that came.
        fail: statuses to answer next to requests that match a pattern, as (pattern, status, times).
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.repos: dict[tuple[str, str], list[dict]] = {}
        self.settings: dict[tuple[str, str], dict] = {}
        self.requests: list[str] = []
        self.fail: list[list] = []
        self._lock = threading.Lock()

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo_type: str, repo_id: str) -> dict[str, bytes]:
        return {name: self.content(digest) for name, digest in self.repos[repo_type, repo_id][-1]["files"].items()}

    def content(self, digest: str) -> bytes:
        return (self.root / digest).read_bytes()

    def store(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self.root / digest).write_bytes(content)
        return digest

    def commit(self, key: tuple[str, str], message: str, files: dict[str, str | None]) -> str:
        with self._lock:
            before = self.repos[key][-1]["files"] if self.repos[key] else {}
            kept = {name: digest for name, digest in {**before, **files}.items() if digest is not None}
            sha = hashlib.sha1(json.dumps([len(self.repos[key]), sorted(kept.items())]).encode()).hexdigest()
            self.repos[key].append({"sha": sha, "message": message, "files": kept})
        return sha


class _Handler(BaseHTTPRequestHandler):
    hub: HubDouble
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.hub.requests.append(f"{method} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._chunks()
        else:
            self.body = self.rfile.read(length)
        for failure in self.hub.fail:
            pattern, status, times = failure
            if times and re.search(pattern, f"{method} {path}"):
                failure[2] -= 1
                return self._json({"error": "made to fail"}, status)
        for route_method, pattern, function in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and route_method == method:
                if method in ("POST", "PUT") and "lfs-put" not in path and not self._may_write(path):
                    return self._json({"error": "Invalid credentials"}, 401)
                return function(self, **match.groupdict())
        self._json({"error": f"no route for {method} {path}"}, 404)

    def _may_write(self, path: str) -> bool:
        reads = path.endswith("/paths-info") or "/paths-info/" in path
        return reads or self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self):
        self._answer("GET")

    def do_HEAD(self):
        self._answer("HEAD")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def _json(self, value, status: int = 200, **headers: str) -> None:
        content = json.dumps(value).encode()
        if status == 404:
            headers.setdefault("X-Error-Code", "RepoNotFound")
        self._send(content, status, {"Content-Type": "application/json", **headers})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # --------------------------------------------------------------------------------------------------------- writing

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        key = asked.get("type") or "model", name
        if key in self.hub.repos:
            return self._json({"error": "exists", "url": self._url(key)}, 409)
        self.hub.repos[key], self.hub.settings[key] = [], asked
        self.hub.commit(key, "initial commit", {".gitattributes": self.hub.store(b"*.parquet filter=lfs\n")})
        self._json({"url": self._url(key), "id": name})

    def _url(self, key) -> str:
        return self.hub.endpoint + ("" if key[0] == "model" else f"/{key[0]}s") + f"/{key[1]}"

    def validate_card(self):
        text = json.loads(self.body)["content"]
        known = isinstance(yaml.safe_load(text.split("---")[1]), dict) if text.startswith("---") else False
        self._json({"errors": [] if known else [{"message": "no metadata"}], "warnings": []}, 200 if known else 400)

    def preupload(self, kind, name, revision):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LFS) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def batch(self, name, prefix=None):
        objects = []
        for one in json.loads(self.body)["objects"]:
            found = (self.hub.root / one["oid"]).is_file()
            actions = {"upload": {"href": f"{self.hub.endpoint}/lfs-put/{one['oid']}"}}
            objects.append({**one, **({} if found else {"actions": actions})})
        self._json({"transfer": "basic", "objects": objects})

    def put(self, digest):
        if self.hub.store(self.body) != digest:
            return self._json({"error": "another content"}, 400)
        self._send(b"", 200, {})

    def commit(self, kind, name, revision):
        message, files = "", {}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif entry["key"] == "lfsFile":
                if not (self.hub.root / value["oid"]).is_file():
                    return self._json({"error": f"{value['path']} was not uploaded"}, 400)
                files[value["path"]] = value["oid"]
            elif entry["key"] == "deletedFile":
                files[value["path"]] = None
        sha = self.hub.commit((kind, name), message, files)
        url = self._url((kind, name))
        pull = {"pullRequestUrl": f"{url}/discussions/1"} if self.query.get("create_pr") else {}
        self._json({"commitUrl": f"{url}/commit/{sha}", "commitOid": sha, "success": True, **pull})

    # --------------------------------------------------------------------------------------------------------- reading

    def _commit_of(self, kind, name, revision):
        commits = self.hub.repos.get((kind, name))
        if not commits:
            self._json({"error": "Repository not found"}, 404)
            return None
        found = next((one for one in commits if one["sha"] == revision), None)
        if found is None and revision in (None, "main"):
            found = commits[-1]
        if found is None:
            self._json({"error": "no such revision"}, 404, **{"X-Error-Code": "RevisionNotFound"})
        return found

    def info(self, kind, name, revision=None):
        commit = self._commit_of(kind, name, revision)
        if commit is None:
            return
        siblings = [{"rfilename": file} for file in sorted(commit["files"])]
        private = bool(self.hub.settings[kind, name].get("private"))
        self._json(
            {"id": name, "sha": commit["sha"], "siblings": siblings, "private": private, "tags": [], "downloads": 0}
        )

    def _entry(self, file: str, digest: str) -> dict:
        size = (self.hub.root / digest).stat().st_size
        lfs = {"lfs": {"oid": digest, "size": size, "pointerSize": 130}} if file.endswith(_LFS) else {}
        return {"type": "file", "path": file, "oid": digest[:40], "size": size, **lfs}

    def tree(self, kind, name, revision, path=""):
        commit = self._commit_of(kind, name, revision)
        if commit is None:
            return
        path = (path or "").strip("/")
        recursive = (self.query.get("recursive") or ["false"])[0].lower() in ("true", "1")
        entries = {}
        for file, digest in sorted(commit["files"].items()):
            if path and not file.startswith(f"{path}/"):
                continue
            rest = file[len(path) + 1 :] if path else file
            parts = rest.split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                folder = "/".join([*([path] if path else []), *parts[:depth]])
                entries[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            if recursive or len(parts) == 1:
                entries[file] = self._entry(file, digest)
        if path and not entries:
            return self._json({"error": "no such path"}, 404, **{"X-Error-Code": "EntryNotFound"})
        self._json(list(entries.values()))

    def paths_info(self, kind, name, revision):
        commit = self._commit_of(kind, name, revision)
        if commit is None:
            return
        if "json" in (self.headers.get("Content-Type") or ""):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode())["paths"]
        entries = []
        for path in paths if isinstance(paths, list) else [paths]:
            if path in commit["files"]:
                entries.append(self._entry(path, commit["files"][path]))
            elif any(file.startswith(f"{path}/") for file in commit["files"]):
                entries.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        self._json(entries)

    def resolve(self, name, revision, file, kind="model"):
        commit = self._commit_of(kind.rstrip("s"), name, revision)
        if commit is None:
            return
        if file not in commit["files"]:
            return self._json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
        digest = commit["files"][file]
        content, status = self.hub.content(digest), 200
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": commit["sha"], "Accept-Ranges": "bytes"}
        if file.endswith(_LFS):
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self._send(content, status, headers)


_KIND, _NAME, _REVISION = "(?P<kind>model|dataset|space)s", "(?P<name>[^/]+/[^/]+)", "(?P<revision>[^/]+)"
_ROUTES = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate_card),
    ("POST", f"/api/{_KIND}/{_NAME}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", f"/(?P<prefix>datasets/|spaces/)?{_NAME}\\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs-put/(?P<digest>[0-9a-f]{64})", _Handler.put),
    ("POST", f"/api/{_KIND}/{_NAME}/commit/{_REVISION}", _Handler.commit),
    ("GET", f"/api/{_KIND}/{_NAME}", _Handler.info),
    ("GET", f"/api/{_KIND}/{_NAME}/revision/{_REVISION}", _Handler.info),
    ("GET", f"/api/{_KIND}/{_NAME}/tree/{_REVISION}(?P<path>/.*)?", _Handler.tree),
    ("POST", f"/api/{_KIND}/{_NAME}/paths-info/{_REVISION}", _Handler.paths_info),
    *(
        (method, f"/(?P<kind>datasets|spaces)/{_NAME}/resolve/{_REVISION}/(?P<file>.+)", _Handler.resolve)
        for method in ("GET", "HEAD")
    ),
    *((method, f"/{_NAME}/resolve/{_REVISION}/(?P<file>.+)", _Handler.resolve) for method in ("GET", "HEAD")),
]
