"""The server of associations: accepts connections, bounds their number, gives each a thread."""

import logging
import socket
import socketserver
import threading
import time
from typing import Any

from dicom_node.association import Association, Terms

_LOG = logging.getLogger(__name__)


class Acceptor(socketserver.ThreadingTCPServer):
    """Listens on one address. `start`, and later `stop`; `port` is the one bound (settings may say 0)."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        terms: Terms,
    ) -> None:
        self._terms = terms
        self._lock = threading.Lock()
        self._open: dict[socket.socket, str] = {}
        self._thread: threading.Thread | None = None
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, socketserver.BaseRequestHandler)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.server_address[1])

    @property
    def associations(self) -> int:
        """Open connections, those under negotiation included."""
        return len(self._open)

    def start(self) -> None:
        """Accepts from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="acceptor", daemon=True)
        self._thread.start()

    def stop(self, within: float = 5.0) -> None:
        """Accepts nobody any more, gives open associations a moment to end, cuts the rest."""
        if self._thread is None:
            return
        self.shutdown()
        self._thread.join()
        self._thread = None
        self.server_close()
        deadline = time.monotonic() + within
        while self._open and time.monotonic() < deadline + 5.0:
            if time.monotonic() >= deadline:
                for connection in list(self._open):
                    _shut(connection)
            time.sleep(0.02)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Bounds connections before a thread exists: twice the associations, and half of that per address."""
        with self._lock:
            total, own = len(self._open), sum(a == client_address[0] for a in self._open.values())
            if total >= 4 * self._terms.limits.associations or own >= 2 * self._terms.limits.associations:
                _LOG.warning("connection refused: too many", extra={"peer": client_address[0]})
                return False
            self._open[request] = client_address[0]
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Runs in the connection's own thread."""
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            request.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._terms.limits.idle * 1000)
            )
        full = self.associations > self._terms.limits.associations
        Association(request, client_address[0], self._terms, full).run()

    def shutdown_request(self, request: Any) -> None:
        """The connection has ended."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An error nobody foresaw ends this connection; the others go on."""
        _LOG.exception("association failed", extra={"peer": client_address[0]})


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
