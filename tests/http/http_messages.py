"""HTTP/1.1 as it is on the wire: where a test says what comes with what."""

import socket

from edge_kit import IMAGE


def asking(address: str = "/v1/classify", *, body: bytes = IMAGE, **fields: str) -> bytes:
    head = {"Host": "localhost", "Content_Length": str(len(body)), **fields}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in head.items())
    return f"POST {address} HTTP/1.1\r\n{lines}\r\n".encode() + body


def answer_of(connection: socket.socket) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body of the next answer, and no byte of the one after it."""
    with connection.makefile("rb", buffering=0) as answer:
        status = answer.readline().rstrip()
        headers = dict(line.rstrip().lower().split(b": ", 1) for line in iter(answer.readline, b"\r\n"))
        body = b""
        while len(body) < int(headers[b"content-length"]):
            body += answer.read(int(headers[b"content-length"]) - len(body))
    return status, headers, body
