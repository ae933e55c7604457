"""Requests over HTTPS to what is no node of the swarm: external certificate authorities.

Rules owned here: the peer is verified by its host's name against the given roots alone; TLS 1.2 or newer; no proxies,
no redirects, no cookies; an answer is read up to a limit, and a longer one is an error. Callback style, as the
transport port's: ``done`` is called exactly once, on the loop's thread, and only hands the matter on.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from runtime.errors import Code, Refused
from runtime.wire.loop import IoLoop
from runtime.wire.port import Material
from runtime.wire.tls import load_chain

logger = logging.getLogger("swarmlet.wire")


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status and body of an answer."""

    status: int
    body: bytes = field(repr=False)


class Https(Protocol):
    """What a node posts to an external CA by."""

    def post(
        self,
        url: str,
        body: bytes,
        *,
        material: Material,
        timeout: float,
        limit: int,
        done: Callable[[HttpAnswer | Refused], None],
    ) -> None:
        """Posts JSON to an ``https`` URL, showing the material's certificate and trusting its roots alone.

        ``Refused(UNAVAILABLE)`` names why there is no answer; one longer than ``limit`` bytes is one too. ``timeout``
        in seconds is for all of it.
        """

    def probe(self, url: str, *, roots: bytes, timeout: float, done: Callable[[bool], None]) -> None:
        """Whether somebody answers at the URL's host and port with a certificate for it under ``roots`` (PEM)."""


class LoopHttps:
    """``Https`` over real sockets, on an I/O loop."""

    def __init__(self, loop: IoLoop) -> None:
        self._loop = loop

    def post(
        self,
        url: str,
        body: bytes,
        *,
        material: Material,
        timeout: float,
        limit: int,
        done: Callable[[HttpAnswer | Refused], None],
    ) -> None:
        """As ``Https.post``."""

        def ended(result: HttpAnswer | BaseException) -> None:
            if isinstance(result, HttpAnswer | Refused):
                done(result)
            else:
                done(Refused(Code.UNAVAILABLE, f"{url} cannot be asked: {_reason(result)}"))

        self._loop.submit(_post(url, body, material, timeout, limit), ended)

    def probe(self, url: str, *, roots: bytes, timeout: float, done: Callable[[bool], None]) -> None:
        """As ``Https.probe``."""

        def ended(result: BaseException | None) -> None:
            if result is not None:
                logger.info("%s is not reachable: %s", url, _reason(result))
            done(result is None)

        self._loop.submit(_probe(url, roots, timeout), ended)


async def _post(url: str, body: bytes, material: Material, seconds: float, limit: int) -> HttpAnswer:
    import aiohttp  # few swarms have an external authority, and every start would wait for the library

    headers = {"Content-Type": "application/json"}
    whole = aiohttp.ClientTimeout(total=seconds)
    connector = aiohttp.TCPConnector(ssl=_context(material), force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=whole, trust_env=False) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        read = bytearray()
        async for chunk in response.content.iter_chunked(64 << 10):
            read += chunk
            if len(read) > limit:
                raise Refused(Code.UNAVAILABLE, f"{url} answered with more than {limit} bytes")
        return HttpAnswer(response.status, bytes(read))


async def _probe(url: str, roots: bytes, seconds: float) -> None:
    parts = urlsplit(url)
    context = _context(Material(1, roots, b"", b""))
    opening = asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context, server_hostname=parts.hostname)
    _reader, writer = await asyncio.wait_for(opening, seconds)
    writer.close()


def _context(material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=material.roots.decode("ascii"))
    if material.certificate:
        load_chain(context, material)
    return context


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return str(error) or type(error).__name__
