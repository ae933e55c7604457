"""What crosses to a node in another process, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import errors
from runtime.protocol import cluster as say
from runtime.protocol.cluster import InitRequest, JoinRequest, RemoteManager, SwarmInfo
from runtime.wire.pb import control_pb2, specs_pb2
from swarmlet.testing.said import REFUSALS, pack, unpack

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.frozensets(st.text()),
    max_leaves=20,
)


@given(plain)
def test_plain_values_come_back(value: Any) -> None:
    assert unpack(pack(value)) == value


@pytest.mark.parametrize(
    "message",
    [
        say.Init(InitRequest("a:1", "b", "", 0, False, specs_pb2.ClusterSpec(), False, "active", None, 0)),
        say.Join(JoinRequest("a:1", "b", "", ("c:2",), "active", "SWMTKN-secret")),
        say.Control("ListNodes", control_pb2.ListNodesRequest(filters={"names": ["x"]})),
        say.Info(),
        say.Leave(True),
        say.LocalNodeState.ACTIVE,
        SwarmInfo(remote_managers=(RemoteManager("n", "a:1"),), warnings=("w",)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_of_the_cluster_layer_come_back(message: Any) -> None:
    assert unpack(pack(message)) == message


@pytest.mark.parametrize(
    "refusal",
    [
        errors.Refused(errors.Code.NOT_FOUND, "no"),
        errors.NotSent(errors.Code.UNAVAILABLE, "no"),
        say.ClusterError("conflict", "no"),
        say.CertificateExpired("no"),
        say.NodeRemoved.of("node-1", manager=True),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_refusals_come_back_as_what_they_are(refusal: errors.Refused) -> None:
    made = unpack(pack(refusal))
    assert type(made) is type(refusal)
    assert (made.code, made.text, str(made)) == (refusal.code, refusal.text, str(refusal))
    assert getattr(made, "kind", None) == getattr(refusal, "kind", None)


@pytest.mark.parametrize("value", [say.SubscribeEvents(lambda: None), object(), {"a": 1}])  # type: ignore[arg-type]
def test_callbacks_and_strangers_do_not_cross(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be said to a node in another process"):
        pack(value)


def test_only_classes_of_the_cluster_layer_come_out() -> None:
    import msgpack

    with pytest.raises(KeyError):
        unpack(msgpack.packb(["object", "Popen"]))


def test_every_refusal_of_the_cluster_layer_comes_back_as_what_it_is() -> None:
    kinds = [each for each in vars(say).values() if isinstance(each, type) and issubclass(each, errors.Refused)]
    assert {each.__name__ for each in kinds} <= set(REFUSALS)
