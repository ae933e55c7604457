"""A certificate authority of people's own, which signs for the swarm over HTTPS as CFSSL does.

As a program, it serves: ``python -m tests.interop.walk.external FOLDER ADDRESS``. The folder holds the root and its key
(`certificates.write_files`), gets a server's certificate, and each request as a line in ``asked``.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.interop.walk.certificates import DAY, dump, write_files
from tests.interop.walk.keys import CA_CONFIG, one_root, rotated
from tests.interop.walk.walker import Walk
from tests.waiting import until

PORT = 8888
PATH = "/api/v1/cfssl/authsign"
NAMES = {"O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}
ROTATE = "swarm ca --rotate --ca-cert {cert} --external-ca protocol=cfssl,url={ca}"
READY = "node ls --format '{{.Hostname}} {{.Status}}'"


class Machine:
    """The authority's machine, and the process that serves there."""

    def __init__(self, w: Walk) -> None:
        self.folder = w.lab.root
        self.namespace, self.address = w.lab.machine("ca")
        self.process: subprocess.Popen[bytes] | None = None
        w.values["ca"] = f"https://{self.address}:{PORT}{PATH}"

    def start(self) -> None:
        """Serves."""
        command = [sys.executable, "-m", "tests.interop.walk.external", str(self.folder), self.address]
        entered = ["nsenter", f"--net=/run/netns/{self.namespace}", *command]
        with (self.folder / "ca.log").open("ab") as log:
            self.process = subprocess.Popen(entered, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        probe = f"import socket; socket.create_connection(('{self.address}', {PORT}), 2)"
        look = [*entered[:2], sys.executable, "-c", probe]
        until(lambda: subprocess.run(look, capture_output=True, check=False).returncode == 0, "the authority serves")

    def stop(self) -> None:
        """Serves no more."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def asked(self) -> str:
        """For whom it was asked to sign, a line for each kind of request."""
        requests = [json.loads(line) for line in (self.folder / "asked").read_text(encoding="utf-8").splitlines()]
        return "\n".join(sorted({json.dumps(shape(each), sort_keys=True) for each in requests}))


def shape(request: dict[str, Any]) -> dict[str, Any]:
    """A request without what is one node's: its key, its id and its swarm's."""
    subject = request.get("subject") or {}
    names = [{key: value for key, value in each.items() if value and key != "O"} for each in subject.get("names") or ()]
    hosts = [each for each in request.get("hosts") or () if each.startswith("swarm-")]
    return {"profile": request.get("profile", ""), "names": names, "hosts": sorted(hosts)}


def external(w: Walk) -> None:
    """The swarm moves to a root whose key an authority elsewhere has, and lets nodes in with it and without it.

    The way back is not walked: the nodes of a dockerd 20.10 renewed their certificates again and again and never moved.
    """
    w.swarm(2, 1)
    w.start("w2", "w3")
    w.values.update(write_files(w.lab.root))
    authority = Machine(w)
    w("m1", ROTATE)
    authority.start()
    w("m1", ROTATE)
    rotated(w, "m1")
    w.does("all have one root", lambda: one_root(w))
    w.does("the authority was asked to sign", authority.asked)
    w("m2", CA_CONFIG)
    w.tokens_of("m2")
    w("w2", "swarm join --token {manager} {m2}:2377")
    w.settle("m1", "m2", "w2")
    w("w2", "node ls")
    authority.stop()
    w("w3", "swarm join --token {worker} {m1}:2377")
    w("m2", "swarm ca --rotate")
    authority.start()
    w.wait("w3 is ready", lambda: "w3 Ready" in w.quietly("m1", READY).out)
    w("m1", "node ls")


# What serves


class Authority:
    """The root and its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key = key

    def sign(self, request: dict[str, Any]) -> str:
        """A certificate for CFSSL's request, as PEM."""
        asked = x509.load_pem_x509_csr(request["certificate_request"].encode())
        authority = request.get("profile") == "CA"
        subject = request.get("subject")
        name = asked.subject
        if subject:
            given = [(oid, each.get(key)) for each in subject["names"] for key, oid in NAMES.items()]
            parts = [x509.NameAttribute(oid, value) for oid, value in given if value]
            name = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, subject["CN"])])
        return self.issue(name, asked.public_key(), request.get("hosts") or [], authority=authority)

    def issue(self, name: x509.Name, key: Any, hosts: list[str], *, authority: bool = False, days: int = 90) -> str:
        """A certificate under the root."""
        now = datetime.datetime.now(datetime.UTC)
        known = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.root.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False)
        )
        if not authority:
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
        made = builder.sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def serve(folder: Path, address: str) -> None:
    """Answers until it is ended."""
    authority = Authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "people's authority")])
    chain = folder / "server.pem"
    chain.write_bytes(dump(key) + authority.issue(name, key.public_key(), [address]).encode())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = json.loads(body)
            with (folder / "asked").open("a") as log:
                log.write(json.dumps(request) + "\n")
            answer = {"success": True, "result": {"certificate": authority.sign(request)}, "errors": [], "messages": []}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = ThreadingHTTPServer((address, PORT), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


CHAPTERS = {"external": external}


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
