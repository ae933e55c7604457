"""Asks external CAs to sign: one URL after the other, until one signs or refuses for good.

No actor: whoever asks gives its ``sink``, so that answers come as messages of its present life.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from runtime.errors import Code, Refused
from runtime.pki.cfssl import ANSWER_MAX, PERMANENT, SIGN_TIMEOUT, read_answer
from runtime.wire.https import HttpAnswer, Https
from runtime.wire.port import Credentials, Material

Sink = Callable[[Callable[[Any], None]], Callable[[Any], None]]
"""An actor's ``sink``: makes a callback of the world into a message of its present life."""


def ask_to_sign(
    https: Https | None,
    urls: Sequence[str],
    body: bytes,
    credentials: Credentials,
    roots: Sequence[bytes],
    sink: Sink,
    then: Callable[[bytes | Refused], None],
) -> None:
    """``then`` hears the certificate (PEM), or the last refusal: ``PERMANENT`` if the CA itself refused.

    The manager shows its own certificate and trusts ``roots`` (PEM) alone, one at a time: during a rotation two of them
    have the same name, and of a server that does not say which of them is meant OpenSSL may try the wrong one.
    ``then`` may be called at once.
    """
    own = credentials.material
    rest = [(url, root) for url in urls for root in roots]

    def ask_next(last: Refused) -> None:
        if https is None or not rest:
            then(last)
            return
        url, root = rest.pop(0)

        def heard(answer: HttpAnswer | Refused) -> None:
            if isinstance(answer, Refused):
                ask_next(answer)
                return
            read = read_answer(url, answer.status, answer.body)
            rest[:] = [each for each in rest if each[0] != url]
            if isinstance(read, Refused) and read.code is not PERMANENT:
                ask_next(read)
            else:
                then(read)

        material = Material(own.version, root, own.certificate, own.key)
        https.post(url, body, material=material, timeout=SIGN_TIMEOUT, limit=ANSWER_MAX, done=sink(heard))

    ask_next(Refused(Code.UNAVAILABLE, "this manager has no way to an external CA"))
