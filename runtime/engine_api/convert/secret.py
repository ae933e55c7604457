"""Secrets and configs. Rule: a secret's data goes in and never comes out; a config's data comes out in base64."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from runtime.engine_api.convert import common, fields
from runtime.wire.pb import specs_pb2

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Config, Secret


def secret_spec_from_json(obj: JsonObject) -> specs_pb2.SecretSpec:
    """A secret spec; ``Data`` in base64."""
    spec = specs_pb2.SecretSpec(data=fields.octets(obj, "Data", ""))
    common.set_annotations(spec.annotations, obj, "")
    if (driver := fields.child(obj, "Driver", "")) is not None:
        spec.driver.CopyFrom(common.driver_from_json(driver, "Driver."))
    if (templating := fields.child(obj, "Templating", "")) is not None:
        spec.templating.CopyFrom(common.driver_from_json(templating, "Templating."))
    return spec


def config_spec_from_json(obj: JsonObject) -> specs_pb2.ConfigSpec:
    """A config spec; ``Data`` in base64."""
    spec = specs_pb2.ConfigSpec(data=fields.octets(obj, "Data", ""))
    common.set_annotations(spec.annotations, obj, "")
    if (templating := fields.child(obj, "Templating", "")) is not None:
        spec.templating.CopyFrom(common.driver_from_json(templating, "Templating."))
    return spec


def secret_to_json(secret: Secret) -> JsonObject:
    """A secret without its data."""
    out = common.meta_to_json(secret.id, secret.meta)
    spec = common.annotations_to_json(secret.spec.annotations)
    if secret.spec.HasField("driver"):
        spec["Driver"] = common.driver_to_json(secret.spec.driver)
    if secret.spec.HasField("templating"):
        spec["Templating"] = common.driver_to_json(secret.spec.templating)
    out["Spec"] = spec
    return out


def config_to_json(config: Config) -> JsonObject:
    """A config with its data."""
    out = common.meta_to_json(config.id, config.meta)
    spec = common.annotations_to_json(config.spec.annotations)
    common.keep(spec, Data=base64.b64encode(config.spec.data).decode())
    if config.spec.HasField("templating"):
        spec["Templating"] = common.driver_to_json(config.spec.templating)
    out["Spec"] = spec
    return out
