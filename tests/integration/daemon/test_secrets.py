"""Secrets and configs of a real daemon: what its tasks read, how one is exchanged, and where the data never is."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from tests.integration.daemon.program import Daemon, service

DATA = "a-passphrase-of-nobody"
SHOW = 'cat "$SWARMLET_SECRETS/key" "$SWARMLET_CONFIGS/app.conf"; echo; exec sleep 100000'


def make(daemon: Daemon, kind: str, name: str, data: str, **more: Any) -> str:
    body = {"Name": name, "Data": base64.b64encode(data.encode()).decode(), **more}
    status, answer = daemon.call("POST", f"/{kind}/create", body)
    assert status == 201, answer
    return str(answer["ID"])


def reference(kind: str, id: str, name: str, target: str, mode: int) -> dict[str, Any]:
    file = {"Name": target, "UID": "0", "GID": "0", "Mode": mode}
    return {"File": file, f"{kind}ID": id, f"{kind}Name": name}


def deploy(daemon: Daemon, secret: str) -> dict[str, Any]:
    config = make(
        daemon, "configs", "conf", '{{.Service.Name}} {{secret "key"}} {{env "MODE"}}', Templating={"Name": "golang"}
    )
    made = service("web", 1, "sh", "-c", SHOW, env={"MODE": "fast"})
    container = made["TaskTemplate"]["ContainerSpec"]
    container["Secrets"] = [reference("Secret", secret, "one", "key", 0o400)]
    container["Configs"] = [reference("Config", config, "conf", "app.conf", 0o444)]
    assert daemon.call("POST", "/services/create", made)[0] == 201
    return made


def running_tasks(daemon: Daemon) -> list[dict[str, Any]]:
    """Those that run and are to run, as one answer shows them."""
    return [
        task
        for task in daemon.get("/tasks", service="web")
        if task["Status"]["State"] == "running" and task["DesiredState"] == "running"
    ]


def task_of(daemon: Daemon) -> dict[str, Any]:
    (task,) = daemon.until(lambda: running_tasks(daemon), "a task runs")
    return dict(task)


def directory(task: dict[str, Any], kind: str) -> Path:
    environ = Path(f"/proc/{task['Status']['ContainerStatus']['PID']}/environ").read_bytes().split(b"\0")
    values = dict(entry.decode().split("=", 1) for entry in environ if entry)
    return Path(values[f"SWARMLET_{kind.upper()}"])


def read(task: dict[str, Any], kind: str, name: str) -> str:
    return (directory(task, kind) / name).read_text(encoding="utf-8")


def test_a_task_reads_its_secret_and_its_templated_config_in_files_of_its_own(daemon: Daemon) -> None:
    deploy(daemon, make(daemon, "secrets", "one", DATA))
    task = task_of(daemon)
    secrets = directory(task, "secrets")
    assert os.stat(secrets).st_mode & 0o777 == 0o700
    assert os.stat(secrets / "key").st_mode & 0o777 == 0o400
    assert read(task, "secrets", "key") == DATA
    assert read(task, "configs", "app.conf") == f"web {DATA} fast"


def test_one_update_exchanges_a_secret_and_nothing_of_the_old_task_stays(daemon: Daemon) -> None:
    old = make(daemon, "secrets", "one", DATA)
    deploy(daemon, old)
    before = task_of(daemon)
    left = directory(before, "secrets")
    new = make(daemon, "secrets", "two", DATA + "-2")
    _, found = daemon.call("GET", "/services/web")
    spec = found["Spec"]
    spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = [reference("Secret", new, "two", "key", 0o400)]
    status, answer = daemon.call("POST", f"/services/web/update?version={found['Version']['Index']}", spec)
    assert status == 200, answer
    daemon.until(lambda: daemon.running("web") and task_of(daemon)["ID"] != before["ID"], "another task runs")
    assert read(task_of(daemon), "secrets", "key") == DATA + "-2"
    daemon.until(lambda: not left.exists(), "the old files are gone")
    assert daemon.call("DELETE", "/secrets/two")[0] == 400
    assert daemon.call("DELETE", "/secrets/one")[0] == 204


def test_a_restarted_daemon_gets_secrets_again_before_it_starts_a_task(daemon: Daemon) -> None:
    deploy(daemon, make(daemon, "secrets", "one", DATA))
    before = task_of(daemon)
    daemon.kill()
    daemon.restart()
    assert task_of(daemon)["ID"] == before["ID"]
    assert read(before, "secrets", "key") == DATA
    os.kill(before["Status"]["ContainerStatus"]["PID"], 9)
    (other,) = daemon.until(
        lambda: [task for task in running_tasks(daemon) if task["ID"] != before["ID"]], "another task runs"
    )
    assert read(other, "secrets", "key") == DATA


def test_the_data_of_a_secret_is_in_no_file_of_the_daemon(daemon: Daemon) -> None:
    deploy(daemon, make(daemon, "secrets", "one", DATA))
    task_of(daemon)
    daemon.kill()
    daemon.restart()
    # what the task itself printed is its own
    kept = [path for path in daemon.root.rglob("*") if path.is_file() and "logs" not in path.parts]
    assert any("LOCK" in path.name for path in kept), "the databases are among them"
    encoded = base64.b64encode(DATA.encode())
    assert [path for path in kept if DATA.encode() in path.read_bytes() or encoded in path.read_bytes()] == []


def test_a_daemon_that_stops_its_tasks_leaves_no_secret_in_memory(daemon: Daemon) -> None:
    deploy(daemon, make(daemon, "secrets", "one", DATA))
    secrets = directory(task_of(daemon), "secrets")
    assert (secrets / "key").exists()
    daemon.stop()
    assert not secrets.parent.parent.exists()
