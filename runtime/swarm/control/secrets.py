"""Control requests about secrets and configs, which follow one set of rules.

Rules owned here: name rule B; bounds of the data; after creation only labels change; what a service refers to is not
removed. The data of a secret never leaves by these requests, that of a config does; internal secrets are not listed.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Final

from runtime.errors import invalid
from runtime.swarm.control.checks import (
    based_on,
    copy_of,
    exists,
    find_or_refuse,
    refuse_taken,
    require,
    require_field,
    stored,
)
from runtime.swarm.control.context import Context
from runtime.swarm.control.listing import Filter, by_id_prefix, by_name, by_name_prefix, labels_match, select_any
from runtime.swarm.naming import check_secret_name
from runtime.swarm.ports import Tx, View
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs

SECRET_SIZE_LIMIT: Final = 500 * 1024
CONFIG_SIZE_LIMIT: Final = 1000 * 1024
"""Data must be smaller than this, in bytes."""


def secret_name(secret: objects.Secret) -> str:
    """The name in a secret's spec."""
    return secret.spec.annotations.name


def config_name(config: objects.Config) -> str:
    """The name in a config's spec."""
    return config.spec.annotations.name


def redacted(secret: objects.Secret) -> objects.Secret:
    """A copy without the data."""
    shown = copy_of(secret)
    shown.spec.ClearField("data")
    return shown


# Secrets.


def get_secret(view: View, request: control.GetSecretRequest, ctx: Context) -> control.GetSecretResponse:
    """One secret, without its data."""
    require(request.secret_id, text="secret ID must be provided")
    return control.GetSecretResponse(secret=redacted(find_or_refuse(view, objects.Secret, request.secret_id)))


def list_secrets(view: View, request: control.ListSecretsRequest, ctx: Context) -> control.ListSecretsResponse:
    """The secrets found by any of names, name prefixes and id prefixes that have the labels; without their data."""
    wanted = request.filters
    filters: list[Filter[objects.Secret]] = [
        by_name(objects.Secret, wanted.names, secret_name),
        by_name_prefix(objects.Secret, wanted.name_prefixes, secret_name),
        by_id_prefix(objects.Secret, wanted.id_prefixes),
    ]
    found = select_any(
        view,
        objects.Secret,
        filters,
        lambda secret: not secret.internal and labels_match(secret.spec.annotations.labels, wanted.labels),
    )
    return control.ListSecretsResponse(secrets=[redacted(secret) for secret in found])


def create_secret(request: control.CreateSecretRequest, ctx: Context) -> Callable[[Tx], control.CreateSecretResponse]:
    """Stores a secret: data of its own, or the name of a driver that provides it."""
    require_field(request, "spec")
    spec = request.spec
    check_secret_spec(spec, ctx)
    secret_id = ctx.new_id()

    def run(tx: Tx) -> control.CreateSecretResponse:
        name = spec.annotations.name
        refuse_taken(tx, objects.Secret, name, exists(f"secret {name} already exists"))
        tx.create(objects.Secret(id=secret_id, spec=spec))
        return control.CreateSecretResponse(secret=redacted(stored(tx, objects.Secret, secret_id)))

    return run


def check_secret_spec(spec: specs.SecretSpec, ctx: Context) -> None:
    """Refuses a secret spec that can never be right."""
    check_secret_name(spec.annotations.name)
    if not spec.HasField("driver"):
        _check_size("secret", spec.data, SECRET_SIZE_LIMIT)
        return
    if not spec.driver.name:
        raise invalid("secret driver must have a name")
    if spec.driver.name not in ctx.secret_drivers:
        raise invalid(f"plugin {spec.driver.name} not found")


def _check_size(kind: str, data: bytes, limit: int) -> None:
    if not 0 < len(data) < limit:
        raise invalid(f"{kind} data must be larger than 0 and less than {limit} bytes")


def update_secret(request: control.UpdateSecretRequest, ctx: Context) -> Callable[[Tx], control.UpdateSecretResponse]:
    """Replaces a secret's labels."""
    require(request.secret_id)
    require_field(request, "secret_version", "spec")

    def run(tx: Tx) -> control.UpdateSecretResponse:
        secret = find_or_refuse(tx, objects.Secret, request.secret_id)
        _check_only_labels(request.spec, secret.spec)
        new = based_on(secret, request.secret_version)
        _replace_labels(new.spec.annotations.labels, request.spec.annotations.labels)
        tx.update(new)
        return control.UpdateSecretResponse(secret=redacted(stored(tx, objects.Secret, secret.id)))

    return run


def _check_only_labels(spec: specs.SecretSpec | specs.ConfigSpec, held: specs.SecretSpec | specs.ConfigSpec) -> None:
    """A name must be the same; data may be left out, and must otherwise be the same (compared in constant time)."""
    same_name = spec.annotations.name == held.annotations.name
    if not same_name or (spec.data and not hmac.compare_digest(spec.data, held.data)):
        raise invalid("only updates to Labels are allowed")


def _replace_labels(labels: MutableMapping[str, str], new: Mapping[str, str]) -> None:
    labels.clear()
    labels.update(new)


def remove_secret(request: control.RemoveSecretRequest, ctx: Context) -> Callable[[Tx], control.RemoveSecretResponse]:
    """Removes a secret that no service refers to."""
    require(request.secret_id, text="secret ID must be provided")

    def run(tx: Tx) -> control.RemoveSecretResponse:
        secret = find_or_refuse(tx, objects.Secret, request.secret_id)
        _refuse_in_use("secret", secret_name(secret), tx.find(objects.Service, "secret", secret.id))
        tx.delete(objects.Secret, secret.id)
        return control.RemoveSecretResponse()

    return run


def _refuse_in_use(kind: str, name: str, services: Sequence[objects.Service]) -> None:
    names = sorted(service.spec.annotations.name for service in services)
    if names:
        plural = "" if len(names) == 1 else "s"
        raise invalid(f"{kind} '{name}' is in use by the following service{plural}: {', '.join(names)}")


# Configs.


def get_config(view: View, request: control.GetConfigRequest, ctx: Context) -> control.GetConfigResponse:
    """One config, with its data."""
    require(request.config_id, text="config ID must be provided")
    return control.GetConfigResponse(config=find_or_refuse(view, objects.Config, request.config_id))


def list_configs(view: View, request: control.ListConfigsRequest, ctx: Context) -> control.ListConfigsResponse:
    """The configs found by any of names, name prefixes and id prefixes that have the labels."""
    wanted = request.filters
    filters: list[Filter[objects.Config]] = [
        by_name(objects.Config, wanted.names, config_name),
        by_name_prefix(objects.Config, wanted.name_prefixes, config_name),
        by_id_prefix(objects.Config, wanted.id_prefixes),
    ]
    found = select_any(
        view,
        objects.Config,
        filters,
        lambda config: labels_match(config.spec.annotations.labels, wanted.labels),
    )
    return control.ListConfigsResponse(configs=found)


def create_config(request: control.CreateConfigRequest, ctx: Context) -> Callable[[Tx], control.CreateConfigResponse]:
    """Stores a config."""
    require_field(request, "spec")
    spec = request.spec
    check_secret_name(spec.annotations.name)
    _check_size("config", spec.data, CONFIG_SIZE_LIMIT)
    config_id = ctx.new_id()

    def run(tx: Tx) -> control.CreateConfigResponse:
        name = spec.annotations.name
        refuse_taken(tx, objects.Config, name, exists(f"config {name} already exists"))
        tx.create(objects.Config(id=config_id, spec=spec))
        return control.CreateConfigResponse(config=stored(tx, objects.Config, config_id))

    return run


def update_config(request: control.UpdateConfigRequest, ctx: Context) -> Callable[[Tx], control.UpdateConfigResponse]:
    """Replaces a config's labels."""
    require(request.config_id)
    require_field(request, "config_version", "spec")

    def run(tx: Tx) -> control.UpdateConfigResponse:
        config = find_or_refuse(tx, objects.Config, request.config_id)
        _check_only_labels(request.spec, config.spec)
        new = based_on(config, request.config_version)
        _replace_labels(new.spec.annotations.labels, request.spec.annotations.labels)
        tx.update(new)
        return control.UpdateConfigResponse(config=stored(tx, objects.Config, config.id))

    return run


def remove_config(request: control.RemoveConfigRequest, ctx: Context) -> Callable[[Tx], control.RemoveConfigResponse]:
    """Removes a config that no service refers to."""
    require(request.config_id, text="config ID must be provided")

    def run(tx: Tx) -> control.RemoveConfigResponse:
        config = find_or_refuse(tx, objects.Config, request.config_id)
        _refuse_in_use("config", config_name(config), tx.find(objects.Service, "config", config.id))
        tx.delete(objects.Config, config.id)
        return control.RemoveConfigResponse()

    return run
