"""HTTP/1.1 over raw sockets: what goes out is exactly what a case wrote, and answers are parsed
strictly (RFC 9112)."""

import contextlib
import json
import socket
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

DEFAULT_TIMEOUT_S = 60.0


class BadAnswer(AssertionError):
    """The server's answer is not HTTP/1.1, or none came."""


@dataclass
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        if len(values) > 1:
            raise BadAnswer(f"header {name} came {len(values)} times")
        return values[0] if values else None

    def json(self):
        try:
            return json.loads(self.body, parse_constant=_no_constant)
        except ValueError as problem:
            raise BadAnswer(f"{self.status}, body is not JSON: {self.body[:200]!r}") from problem

    def __str__(self) -> str:
        return f"HTTP {self.status} {self.body[:300]!r}"


def _no_constant(text: str):
    raise ValueError(f"{text} is not JSON")


class Connection:
    """One TCP connection."""

    def __init__(self, host: str, port: int, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.socket = socket.create_connection((host, port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s
        self._buffer = b""
        self._closed = False

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends; a peer that has answered and closed already is not an error."""
        self._end = time.monotonic() + self._timeout_s
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def is_closed(self, within_s: float) -> bool:
        """Whether the server closes the connection within this time."""
        end = time.monotonic() + within_s
        try:
            while (left := end - time.monotonic()) > 0:
                self.socket.settimeout(left)
                data = self.socket.recv(65536)
                if not data:
                    return True
                self._buffer += data
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def answer(self, method: str = "GET") -> Answer:
        """Reads one answer; raises BadAnswer when the server closes or falls silent instead."""
        interim: list[int] = []
        while True:
            head = self._until(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            version, _, rest = lines[0].partition(" ")
            status = rest[:3]
            if version not in ("HTTP/1.1", "HTTP/1.0") or not status.isdigit():
                raise BadAnswer(f"not a status line: {lines[0]!r}")
            headers = []
            for line in lines[1:]:
                name, colon, value = line.partition(":")
                if not colon or name != name.strip():
                    raise BadAnswer(f"not a header: {line!r}")
                headers.append((name, value.strip()))
            answer = Answer(int(status), headers, interim=interim)
            if answer.status >= 200:
                break
            interim.append(answer.status)
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        length = answer.header("content-length")
        if (answer.header("transfer-encoding") or "").lower() == "chunked":
            if length is not None:
                raise BadAnswer("both Content-Length and Transfer-Encoding in the answer")
            answer.body = self._chunked()
        elif length is not None:
            answer.body = self._exactly(int(length))
        else:
            answer.body = self._rest()
        return answer

    def _more(self) -> bool:
        left = self._end - time.monotonic()
        if left <= 0:
            raise BadAnswer(f"no answer within {self._timeout_s:g} s")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise BadAnswer(f"no answer within {self._timeout_s:g} s") from None
        except ConnectionResetError:
            data = b""
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._more():
                raise BadAnswer(f"closed without an answer, after {self._buffer[:100]!r}")
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not self._more():
                raise BadAnswer(f"closed after {len(self._buffer)} of {count} bytes of the body")
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _chunked(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            body += self._exactly(size)
            if self._exactly(2) != b"\r\n":
                raise BadAnswer("a chunk of the answer does not end with CRLF")
        while self._until(b"\r\n"):
            pass
        return body

    def _rest(self) -> bytes:
        while self._more():
            pass
        data, self._buffer = self._buffer, b""
        return data


class Http:
    """A server's REST side; each request has a connection of its own."""

    def __init__(self, url: str, extra_headers: list[tuple[str, str]]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("--url must be http://HOST[:PORT]")
        self.host, self.port = parts.hostname, parts.port or 80
        self.prefix = parts.path.rstrip("/")
        self.extra_headers = extra_headers

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    def connect(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Connection:
        return Connection(self.host, self.port, timeout_s)

    def head(self, method: str, path: str, headers=(), *, version: str = "HTTP/1.1") -> bytes:
        """A request's head, with Host and the headers of the command line."""
        lines = [f"{method} {self.prefix}{path} {version}", f"Host: {self.authority}"]
        lines += [f"{name}: {value}" for name, value in [*self.extra_headers, *headers]]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers=(), timeout_s=None
    ) -> Answer:
        """One request with its Content-Length; no other header than those given."""
        headers = list(headers)
        if body is not None and not any(
            name.lower() in ("content-length", "transfer-encoding") for name, _ in headers
        ):
            headers.append(("Content-Length", str(len(body))))
        with self.connect(timeout_s or DEFAULT_TIMEOUT_S) as connection:
            connection.send(self.head(method, path, headers) + (body or b""))
            return connection.answer(method)

    def get(self, path: str, headers=()) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: bytes, headers=(), timeout_s=None) -> Answer:
        return self.request("POST", path, body, headers, timeout_s)

    def post_json(self, path: str, value, headers=()) -> Answer:
        headers = [("Content-Type", "application/json"), *headers]
        return self.post(path, json.dumps(value).encode(), headers)

    def raw(self, data: bytes, timeout_s: float = DEFAULT_TIMEOUT_S) -> Answer:
        """Sends these bytes on a new connection and reads one answer."""
        with self.connect(timeout_s) as connection:
            connection.send(data)
            return connection.answer()


def events(body: bytes) -> list[str]:
    """The data of each server-sent event (WHATWG HTML, "Server-sent events")."""
    found = []
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        data = [line[5:].removeprefix(" ") for line in block.split("\n") if line[:5] == "data:"]
        if data:
            found.append("\n".join(data))
    return found
