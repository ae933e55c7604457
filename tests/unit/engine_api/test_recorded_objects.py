"""Objects as a SwarmKit manager stored them, and as the docker engine 20.10.24 beside it showed them.

``recorded_objects.json`` holds each in protobuf and in JSON; what is newer than that engine is named here.
"""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest

from runtime.engine_api.convert import adjust, network, node, secret, service, task
from runtime.wire.pb import objects_pb2

RECORDED = json.loads((pathlib.Path(__file__).parent / "recorded_objects.json").read_text(encoding="utf-8"))
SHOW: dict[str, Any] = {
    "Service": service.service_to_json,
    "Task": task.task_to_json,
    "Node": node.node_to_json,
    "Network": network.network_to_json,
    "Secret": secret.secret_to_json,
    "Config": secret.config_to_json,
}


def stored(record: dict[str, Any]) -> Any:
    return getattr(objects_pb2, record["kind"]).FromString(base64.b64decode(record["stored"]))


def test_every_kind_was_recorded() -> None:
    assert {record["kind"] for record in RECORDED} == set(SHOW)


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: f"{record['kind']}-{record['stored'][-9:]}")
def test_a_stored_object_is_shown_as_the_engine_shows_it(record: dict[str, Any]) -> None:
    shown = SHOW[record["kind"]](stored(record))
    assert shown == record["shown"]
    # Clients that print raw JSON show fields in this order.
    assert json.dumps(shown) == json.dumps(record["shown"])


@pytest.mark.parametrize(
    "record", [each for each in RECORDED if each["kind"] == "Service"], ids=lambda record: record["stored"][-9:]
)
def test_what_is_shown_of_a_service_is_stored_again_as_it_was(record: dict[str, Any]) -> None:
    body = json.loads(json.dumps(record["shown"]["Spec"]))
    adjust.adjust_service_spec(body, (1, 41))
    assert (
        service.service_to_json(objects_pb2.Service(spec=service.spec_from_json(body)))["Spec"]
        == (record["shown"]["Spec"])
    )
