"""Calls by the thousand from a process of their own: `python flood.py PORT CA CERT KEY RATE SECONDS CONNECTIONS < TOKEN`.

Each call carries the token from standard input under a key id made up for it. Frames are written as they are, since an
ordinary client would be slower than what it is to load; what the answers say is not read, only that they end.
Prints one JSON document: calls begun, answered, and the seconds it took.
"""

import json
import random
import ssl
import sys
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from threading import Thread

from proxy_parts import frame, headers, message

WINDOW = frame(8, 0, 0, (1 << 30).to_bytes(4, "big"))
MOST_OPEN = 25
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def connected(port: int, ca: str, cert: str, key: str) -> ssl.SSLSocket:
    """A TLS connection that has begun to speak HTTP/2."""
    import socket

    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    made = context.wrap_socket(plain, server_hostname="localhost")
    made.sendall(PREFACE + frame(4, 0, 0) + WINDOW)
    return made


class Flood:
    """One connection's share."""

    def __init__(self, made: ssl.SSLSocket, token: str, path: bytes, body: bytes, seed: int) -> None:
        first, self._rest = token.split(".", 1)
        self._header = json.loads(urlsafe_b64decode(first + "=="))
        self._socket, self._path, self._body = made, path, body
        self._dice = random.Random(seed)
        self.begun = self.answered = 0

    def run(self, rate: float, seconds: float) -> None:
        """Begin calls at this rate while fewer than `MOST_OPEN` are open; then wait for the last answers."""
        reader = Thread(target=self._read, daemon=True)
        reader.start()
        start = time.monotonic()
        while (passed := time.monotonic() - start) < seconds:
            room = min(int(passed * rate) - self.begun, MOST_OPEN - (self.begun - self.answered))
            if room <= 0:
                time.sleep(0.002)
                continue
            self._socket.sendall(b"".join(self._call(2 * (self.begun + n) + 1) for n in range(room)))
            self.begun += room
        until = time.monotonic() + 5
        while self.answered < self.begun and time.monotonic() < until:
            time.sleep(0.01)

    def _call(self, stream: int) -> bytes:
        header = {**self._header, "kid": f"made-up-{self._dice.getrandbits(64):x}"}
        token = urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=") + b"." + self._rest.encode()
        extra = [(b"authorization", b"Bearer " + token), (b"grpc-timeout", b"5S")]
        return headers(stream, self._path, extra) + message(stream, self._body)

    def _read(self) -> None:
        data = bytearray()
        self._socket.settimeout(None)
        while chunk := self._socket.recv(1 << 18):
            data += chunk
            while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3], "big")):
                kind, flags = data[3], data[4]
                if kind == 3 or (kind in (0, 1) and flags & 1):
                    self.answered += 1
                elif kind == 6 and not flags & 1:
                    self._socket.sendall(frame(6, 1, 0, bytes(data[9:17])))
                del data[: 9 + size]


def main() -> None:
    """As the module says."""
    from sidecar.demo.profiles.v1 import profiles_pb2 as pb
    from sidecar.demo.service import SERVICE

    port, ca, cert, key, rate, seconds, connections = sys.argv[1:]
    path, body = f"/{SERVICE}/GetProfile".encode(), pb.GetProfileRequest(user_id=1).SerializeToString()
    token, many = sys.stdin.read().strip(), int(connections)
    floods = [Flood(connected(int(port), ca, cert, key), token, path, body, seed) for seed in range(many)]
    begun = time.monotonic()
    threads = [Thread(target=one.run, args=(float(rate) / many, float(seconds))) for one in floods]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = {"begun": sum(one.begun for one in floods), "answered": sum(one.answered for one in floods)}
    print(json.dumps({**found, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main()
