"""This node's tasks as containers: lists, filters, one of them, images, volumes, disk usage, and what info counts."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from runtime.engine_api.convert import local
from runtime.engine_api.errors import ApiError
from runtime.engine_api.routes import later, system
from runtime.errors import Code, Refused
from runtime.protocol.cluster import ClusterError
from runtime.wire.pb import types_pb2 as types
from runtime.wire.pb.objects_pb2 import Task
from tests.unit.engine_api.fake import NODE_ID, FakeBackend
from tests.unit.engine_api.support import ask


class Local(FakeBackend):
    """A node with an image and some tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.web = self.add_service("web")
        self.web.spec.task.container.command.append("sleep")
        self.web.spec.task.container.args.append("1d")
        self.web.spec.task.container.labels["mine"] = "yes"
        self.trouble: Refused | None = None

    def task(self, number: int, state: Any = types.RUNNING, ago: int = 100, code: int = 0) -> Task:
        task = self.add_task(self.web, number)
        task.service_annotations.name = "web"
        task.status.state = state
        task.status.timestamp.seconds = int(time.time()) - ago
        task.status.container.container_id = f"{number:064x}"
        task.status.container.pid = 1000 + number
        task.status.container.exit_code = code
        return task

    async def system(self) -> Any:
        import dataclasses

        return dataclasses.replace(await super().system(), image_names=("host",))

    async def local_tasks(self) -> Any:
        if self.trouble is not None:
            raise self.trouble
        return await super().local_tasks()


def listed(backend: FakeBackend, query: str = "") -> list[str]:
    status, found = ask(backend, "GET", f"/containers/json{query}")
    assert status == 200, found
    return [each["Id"].lstrip("0") for each in found]


def test_a_running_task_is_a_container_with_the_labels_of_the_engine() -> None:
    backend = Local()
    task = backend.task(1)
    status, (found,) = ask(backend, "GET", "/containers/json")
    assert status == 200
    assert found == {
        "Id": f"{1:064x}",
        "Names": [f"/web.1.{task.id}"],
        "Image": "busybox",
        "ImageID": local.image_id("busybox"),
        "Command": "sleep 1d",
        "Created": task.status.timestamp.seconds,
        "Ports": [],
        "Labels": {
            "com.docker.swarm.node.id": NODE_ID,
            "com.docker.swarm.service.id": backend.web.id,
            "com.docker.swarm.service.name": "web",
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": task.id,
            "com.docker.swarm.task.name": f"web.1.{task.id}",
            "mine": "yes",
        },
        "State": "running",
        "Status": "Up 1 minute",
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {}},
        "Mounts": [],
    }


@pytest.mark.parametrize("image", ["host", "host:1", "actor/counter"])
def test_what_is_no_container_is_on_the_machines_network(image: str) -> None:
    backend = Local()
    task = backend.task(1)
    task.spec.container.image = image
    _, (found,) = ask(backend, "GET", "/containers/json")
    _, whole = ask(backend, "GET", f"/containers/{task.status.container.container_id}/json")
    assert found["HostConfig"]["NetworkMode"] == whole["HostConfig"]["NetworkMode"] == "host"


def test_only_those_that_run_are_listed_unless_asked_otherwise() -> None:
    backend = Local()
    backend.task(1, ago=30)
    backend.task(2, types.FAILED, ago=10, code=3)
    backend.task(3, types.STARTING, ago=20)
    backend.task(4).status.ClearField("container")
    assert listed(backend) == ["1"]
    assert listed(backend, "?all=1") == ["2", "3", "1"]
    assert listed(backend, "?limit=2") == ["2", "3"]
    assert listed(backend, '?filters={"status":["exited"]}') == ["2"]
    assert listed(backend, '?filters={"exited":["3"]}') == ["2"]
    assert listed(backend, '?filters={"exited":["4"]}') == []


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ('{"label":["mine"]}', ["2", "1"]),
        ('{"label":{"mine=yes":true,"com.docker.swarm.service.name=web":true}}', ["2", "1"]),
        ('{"label":["mine=no"]}', []),
        ('{"name":["web.1"]}', ["1"]),
        ('{"name":["^/web"]}', ["2", "1"]),
        ('{"id":["' + f"{1:064x}"[:63] + '2"]}', ["2"]),
        ('{"is-task":["true"]}', ["2", "1"]),
        ('{"ancestor":["busybox"]}', ["2", "1"]),
        ('{"ancestor":["other"]}', []),
    ],
)
def test_containers_are_filtered(filters: str, found: list[str]) -> None:
    backend = Local()
    backend.task(1, ago=30)
    backend.task(2, ago=20)
    assert listed(backend, f"?filters={filters}") == found


def test_what_a_container_query_may_not_say() -> None:
    assert ask(Local(), "GET", '/containers/json?filters={"foo":["a"]}') == (400, "Invalid filter 'foo'")
    assert ask(Local(), "GET", "/containers/json?limit=x")[0] == 400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Up Less than a second"),
        (1, "Up 1 second"),
        (59, "Up 59 seconds"),
        (7200, "Up 2 hours"),
        (90000, "Up 1 day"),
        (1300000, "Up 2 weeks"),
    ],
)
def test_how_long_it_is_up_is_told_in_one_unit(seconds: int, text: str) -> None:
    task = Task()
    task.status.state = types.RUNNING
    task.status.timestamp.seconds = 1000
    assert local.Container(task, task.status).described(1000.0 + seconds) == text


def test_a_container_is_found_by_id_name_and_prefix() -> None:
    backend = Local()
    task = backend.task(1, types.FAILED, code=3)
    backend.task(2)
    for term in (f"{1:064x}", f"web.1.{task.id}"):
        status, found = ask(backend, "GET", f"/containers/{term}/json")
        assert (status, found["Name"]) == (200, f"/web.1.{task.id}")
    assert found["State"] == {
        "Status": "exited", "Running": False, "Paused": False, "Restarting": False, "OOMKilled": False, "Dead": False,
        "Pid": 0, "ExitCode": 3, "Error": "", "StartedAt": "0001-01-01T00:00:00Z",
        "FinishedAt": found["State"]["FinishedAt"],
    }  # fmt: skip
    assert found["State"]["FinishedAt"] > "2020"
    assert ask(backend, "GET", "/containers/0/json") == (400, "Multiple IDs found with provided prefix: 0")
    assert ask(backend, "GET", "/containers/nosuch/json") == (404, "No such container: nosuch")


def test_a_container_shows_what_its_task_was_started_with() -> None:
    backend = Local()
    task = backend.task(1)
    task.spec.container.env.extend(["SLOT={{.Task.Slot}}", "AT={{.Node.Hostname}}/{{.Node.Platform.OS}}"])
    task.spec.container.hostname = "{{.Service.Name}}-{{.Task.Slot}}"
    gpu = task.assigned_generic_resources.add().named_resource_spec
    gpu.kind, gpu.value = "gpu", "a"
    port = task.status.port_status.ports.add()
    port.target_port, port.published_port = 80, 40001
    found = ask(backend, "GET", f"/containers/{1:064x}/json")[1]
    assert found["Config"]["Env"] == ["SLOT=1", "AT=vm/linux", "DOCKER_RESOURCE_GPU=a"]
    assert found["Config"]["Hostname"] == "web-1"
    assert found["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "40001"}]}
    task.spec.container.env.append("BAD={{.Nope}}")
    found = ask(backend, "GET", f"/containers/{1:064x}/json")[1]
    assert found["Config"]["Env"][0] == "SLOT={{.Task.Slot}}"


@pytest.mark.parametrize(
    ("state", "err", "shown", "health"),
    [
        (types.STARTING, "", "Up 1 minute (health: starting)", "starting"),
        (types.RUNNING, "", "Up 1 minute (healthy)", "healthy"),
        (types.FAILED, "dockerexec: unhealthy container", "Exited (0) 1 minute ago", "unhealthy"),
    ],
)
def test_a_container_with_a_health_check_shows_its_health(state: Any, err: str, shown: str, health: str) -> None:
    backend = Local()
    task = backend.task(1, state)
    task.status.err = err
    assert "Health" not in ask(backend, "GET", f"/containers/{1:064x}/json")[1]["State"]
    task.spec.container.healthcheck.test.extend(["CMD", "true"])
    assert ask(backend, "GET", "/containers/json?all=1")[1][0]["Status"] == shown
    found = ask(backend, "GET", f"/containers/{1:064x}/json")[1]
    assert found["State"]["Health"]["Status"] == health
    assert found["Config"]["Healthcheck"] == {"Test": ["CMD", "true"]}


def test_logs_of_a_container_are_read_on_its_node_whether_that_is_a_manager_or_not() -> None:
    import asyncio
    import dataclasses

    from runtime.engine_api.call import Call, Stream
    from runtime.engine_api.routes import containers
    from runtime.wire.pb import logs_pb2

    backend = Local()
    task = backend.task(1)
    backend.info = dataclasses.replace(backend.info, control_available=False)
    backend.log_batches = [logs_pb2.SubscribeLogsMessage(messages=[logs_pb2.LogMessage(stream=1, data=b"hi\n")])]
    call = Call(backend, "GET", ["containers", f"{1:064x}", "logs"], "stdout=1&tail=5")

    async def read() -> list[bytes]:
        found = await containers.container_logs(call)
        assert isinstance(found, Stream)
        return [piece async for piece in found.pieces]

    assert asyncio.run(read()) == [b"\x01\0\0\0\0\0\0\x03hi\n"]
    ((name, id, options),) = backend.did
    assert (name, id, list(options.streams), options.tail) == ("local_logs", task.id, [1], -6)
    assert backend.log_requests == []


def test_images_are_what_the_executor_runs() -> None:
    backend = Local()
    status, (found,) = ask(backend, "GET", "/images/json")
    assert (status, found["RepoTags"], found["Size"]) == (200, ["host:latest"], 0)
    for name in ("host", "host:latest", found["Id"], found["Id"][:20]):
        assert ask(backend, "GET", f"/images/{name}/json")[1]["Id"] == found["Id"]
    assert ask(backend, "GET", "/images/a/b/json") == (404, "no such image: a/b: No such image: a/b:latest")
    assert ask(backend, "GET", "/images/x:1/json") == (404, "no such image: x:1: No such image: x:1")


def test_images_are_chosen_by_reference() -> None:
    for reference, count in (("host", 1), ("host:latest", 1), ("ho*", 1), ("nosuch", 0), ("host:1", 0)):
        status, found = ask(Local(), "GET", f'/images/json?filters={{"reference":["{reference}"]}}')
        assert (status, len(found)) == (200, count), reference
    assert ask(Local(), "GET", '/images/json?filters={"dangling":["true"]}') == (400, "Invalid filter 'dangling'")


def test_there_are_no_volumes() -> None:
    assert ask(Local(), "GET", "/volumes") == (200, {"Volumes": [], "Warnings": None})
    for method in ("GET", "DELETE"):
        assert ask(Local(), method, "/volumes/data") == (404, "get data: no such volume")


def test_disk_usage_counts_what_is_there_and_no_bytes() -> None:
    backend = Local()
    backend.task(1)
    status, found = ask(backend, "GET", "/system/df")
    assert status == 200
    assert [len(found[key]) for key in ("Images", "Containers", "Volumes")] == [1, 1, 0]
    assert found["LayersSize"] == 0


def test_info_counts_containers_and_is_answered_when_the_agent_is_not() -> None:
    backend = Local()
    backend.task(1)
    backend.task(2, types.FAILED)
    counted = ask(backend, "GET", "/info")[1]
    assert [counted[key] for key in ("Containers", "ContainersRunning", "ContainersStopped", "Images")] == [2, 1, 1, 1]
    backend.trouble = ClusterError("unavailable", "starting again")
    assert ask(backend, "GET", "/info")[1]["Containers"] == 0
    assert ask(backend, "GET", "/containers/json") == (503, "starting again")


@pytest.mark.parametrize(
    ("method", "path", "word"),
    [
        ("POST", "/containers/0/restart", "containers are made by services"),
        ("GET", "/containers/0/changes", "processes have the machine's"),
        ("PUT", "/containers/0/archive", "processes have the machine's"),
        ("DELETE", "/images/host", "keeps no images"),
        ("POST", "/commit", "builds no images"),
        ("POST", "/build", "builds no images"),
        ("GET", "/images/host/history", "keeps no images"),
        ("POST", "/images/host/tag", "keeps no images"),
        ("POST", "/plugins/pull", "no plugins"),
    ],
)
def test_what_is_not_offered_is_refused_in_words_for_it(method: str, path: str, word: str) -> None:
    backend = Local()
    backend.task(1)
    status, text = ask(backend, method, path)
    assert (status, word in text) == (501, True), text


def test_there_is_nothing_to_prune_but_the_swarms_history_which_stays() -> None:
    backend = Local()
    backend.task(1)
    for path, key in (("images", "ImagesDeleted"), ("volumes", "VolumesDeleted"), ("build", "CachesDeleted")):
        status, found = ask(backend, "POST", f"/{path}/prune")
        assert (status, found[key] or None, found["SpaceReclaimed"]) == (200, None, 0)
    assert ask(backend, "POST", "/containers/prune") == (200, {"ContainersDeleted": None, "SpaceReclaimed": 0})
    backend.task(2, types.FAILED)
    status, text = ask(backend, "POST", "/containers/prune")
    assert (status, "--task-history-limit" in text) == (501, True)
    assert ask(backend, "GET", "/plugins") == (200, [])
    assert ask(backend, "GET", "/plugins/x/json") == (404, 'plugin "x" not found')


def test_info_names_the_plugins_that_the_executor_says_its_node_has() -> None:
    class Plugged(Local):
        async def system(self) -> Any:
            import dataclasses

            names = (("Network", "overlay"), ("Log", "local"), ("Log", "json-file"))
            return dataclasses.replace(await super().system(), plugins=names)

    found = ask(Plugged(), "GET", "/info")[1]["Plugins"]
    assert found == {"Volume": [], "Network": ["overlay"], "Authorization": None, "Log": ["json-file", "local"]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"Name": "v"}, (501, later.SENTENCES["volumes"])),
        ({"Name": "v", "Driver": "local"}, (501, later.SENTENCES["volumes"])),
        (
            {"Name": "v", "Driver": "csi"},
            (404, 'create v: error looking up volume plugin csi: plugin "csi" not found'),
        ),
        (
            {"Name": "v", "Driver": "csi", "ClusterVolumeSpec": {"Group": "g"}},
            (501, "cluster volumes are not offered by this version of the daemon"),
        ),
    ],
)
def test_no_volume_is_made_and_the_refusal_says_of_which_kind(body: dict[str, Any], expected: Any) -> None:
    assert ask(Local(), "POST", "/volumes/create", body) == expected


# A node whose tasks are an engine's


def with_engine(**shown: Any) -> Local:
    backend = Local()
    backend.has_engine = True
    backend.shown = {path.replace("_", "/"): answer for path, answer in shown.items()}
    return backend


def test_images_and_volumes_are_the_engines_and_it_is_asked_as_the_client_asked() -> None:
    images, volumes = [{"Id": "sha256:1"}], {"Volumes": [{"Name": "v"}], "Warnings": None}
    backend = with_engine(_images_json=images, _volumes=volumes, _volumes_v={"Name": "v"}, _images_b_json={"Id": "1"})
    assert ask(backend, "GET", '/images/json?all=1&filters={"dangling":["true"]}&digests=') == (200, images)
    assert ask(backend, "GET", '/volumes?filters={"name":["v"]}') == (200, volumes)
    assert ask(backend, "GET", "/volumes/v") == (200, {"Name": "v"})
    assert ask(backend, "GET", "/images/b/json") == (200, {"Id": "1"})
    assert backend.looks == [
        ("/images/json", {"all": "1", "filters": '{"dangling":["true"]}'}),
        ("/volumes", {"filters": '{"name":["v"]}'}),
        ("/volumes/v", {}),
        ("/images/b/json", {}),
    ]


def test_what_the_engine_refuses_is_refused_in_its_words() -> None:
    backend = with_engine(_images_json=ApiError(400, "bad filter"), _volumes=Refused(Code.UNAVAILABLE, "it is down"))
    assert ask(backend, "GET", "/images/json") == (400, "bad filter")
    assert ask(backend, "GET", "/images/nosuch/json") == (404, "nothing at /images/nosuch/json")
    assert ask(backend, "GET", "/volumes")[0] == 503


def test_a_name_with_slashes_is_one_word_of_the_engines_path() -> None:
    backend = with_engine()
    ask(backend, "GET", "/images/quay.io/a/b:1/json")
    assert backend.looks == [("/images/quay.io/a/b%3A1/json", {})]


def test_a_container_is_shown_whole_as_long_as_its_engine_has_it() -> None:
    backend = with_engine()
    task = backend.task(1)
    assert ask(backend, "GET", "/containers/0/json")[1]["Name"] == f"/web.1.{task.id}"
    backend.shown[f"/containers/{1:064x}/json"] = {"Mounts": [{"Type": "bind"}]}
    assert ask(backend, "GET", "/containers/0/json?size=1") == (200, {"Mounts": [{"Type": "bind"}]})
    assert backend.looks[-1] == (f"/containers/{1:064x}/json", {"size": "1"})
    backend.shown[f"/containers/{1:064x}/json"] = ApiError(500, "broken")
    assert ask(backend, "GET", "/containers/0/json") == (500, "broken")
    assert ask(backend, "GET", "/containers/9/json") == (404, "No such container: 9")


def test_disk_usage_is_the_engines_but_of_this_nodes_containers_alone() -> None:
    own, other = {"Id": f"{1:064x}"}, {"Id": "f" * 64}
    backend = with_engine(_system_df={"LayersSize": 7, "Containers": [own, other], "Volumes": None})
    backend.task(1)
    assert ask(backend, "GET", "/system/df") == (200, {"LayersSize": 7, "Containers": [own], "Volumes": None})


@pytest.mark.parametrize("subject", ["images", "volumes"])
def test_what_is_the_engines_is_not_pruned_here(subject: str) -> None:
    status, text = ask(with_engine(), "POST", f"/{subject}/prune")
    assert (status, "prune them there" in text) == (501, True)


def test_filters_that_are_none_are_refused() -> None:
    assert ask(Local(), "GET", '/volumes?filters={"bogus":["1"]}') == (400, "Invalid filter 'bogus'")
    assert ask(Local(), "GET", '/containers/json?filters={"status":["bogus"]}') == (
        400,
        "Invalid filter 'status=bogus'",
    )


def test_info_says_what_the_engine_knows_better_and_is_answered_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = with_engine(
        _info={"Images": 7, "LoggingDriver": "syslog", "MemoryLimit": True, "Name": "theirs", "NCPU": 99}
    )
    found = ask(backend, "GET", "/info")[1]
    assert (found["Images"], found["LoggingDriver"], found["MemoryLimit"]) == (7, "syslog", True)
    assert (found["Name"], found["NCPU"]) != ("theirs", 99)
    backend.shown["/info"] = Refused(Code.UNAVAILABLE, "it is down")
    assert ask(backend, "GET", "/info")[1]["Images"] == 1

    async def silent(path: str, query: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(backend, "engine", silent)
    monkeypatch.setattr(system, "ENGINE_S", 0.01)
    assert ask(backend, "GET", "/info")[1]["Images"] == 1
