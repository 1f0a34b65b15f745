"""The page over HTTP while runs train: on this machine alone, and it answers only to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from embedtrain.reporting.page.facts import Facts
from embedtrain.reporting.page.html import page_html
from embedtrain.types import InputError

HOST = "127.0.0.1"


class PageServer(ThreadingHTTPServer):
    """Answers `/` with the page, `/data` with what it shows, `/state` with a name of what folders hold.

    Args:
        port: of 127.0.0.1; 0 takes a free one.
        state: names what is there now; cheap.
        data: the facts of a page in that state.

    Raises:
        InputError: the port is in use.
    """

    daemon_threads = True

    def __init__(self, port: int, state: Callable[[], str], data: Callable[[str], Facts]) -> None:
        try:
            super().__init__((HOST, port), _Answer)
        except OSError as error:
            cure = "Give another one, or port=0 for a free one"
            raise InputError(f"port={port}: {error.strerror}. {cure}") from error
        self._state, self._data = state, data
        self._lock = Lock()
        self._made: tuple[str, Facts] | None = None

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://{HOST}:{self.server_port}/"

    @property
    def names(self) -> set[str]:
        """What a browser may call it: another name is a page elsewhere that was pointed at this machine."""
        return {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    def state(self) -> str:
        """The name of what the folders hold now."""
        return self._state()

    def data(self) -> Facts:
        """The facts of the folders, made anew where they have changed."""
        with self._lock:
            state = self._state()
            if self._made is None or self._made[0] != state:
                self._made = (state, self._data(state))
            return self._made[1]


class _Answer(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "embedtrain", ""

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.names:
            self.send_error(403, "this server answers to its own name only")
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._send(page_html(self.server.data()), "text/html")
        elif path == "/data":
            self._send(json.dumps(self.server.data(), ensure_ascii=False), "application/json")
        elif path == "/state":
            self._send(self.server.state(), "text/plain")
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nothing: a page that asks every two seconds would fill the terminal."""

    def _send(self, text: str, kind: str) -> None:
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)
