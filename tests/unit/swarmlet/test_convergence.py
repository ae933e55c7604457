"""Whether services run as asked, why not, and what has to be done to make them."""

from __future__ import annotations

import pytest

from runtime.wire.pb import objects_pb2, types_pb2
from swarmlet import deployment
from swarmlet.convergence import ServiceState, judge, state_name, task_name
from tests.unit.swarmlet.objects import service, task

FAILED, PENDING = types_pb2.FAILED, types_pb2.PENDING
COMPLETE, SHUTDOWN = types_pb2.COMPLETE, types_pb2.SHUTDOWN
NODES = [objects_pb2.Node(id="n1"), objects_pb2.Node(id="n2")]


def state(web: object, *tasks: object) -> ServiceState:
    (found,) = judge([web], tasks)  # type: ignore[list-item]
    return found


def test_a_service_whose_replicas_all_run_has_converged() -> None:
    web = service()
    found = state(web, task(web, 1), task(web, 2))
    assert (found.converged, found.running, found.wanted, found.reasons) == (True, 2, 2, ())


def test_a_service_of_no_replicas_has_converged_at_once() -> None:
    assert state(service(replicas=0)).converged


def test_a_missing_replica_is_told_with_what_its_task_says() -> None:
    web = service()
    waiting = task(web, 2, PENDING, err="no suitable node (insufficient resources on 1 node)")
    found = state(web, task(web, 1), waiting)
    assert found.reasons == (
        "1 of 2 tasks run",
        "pending: no suitable node (insufficient resources on 1 node)",
    )


def test_the_same_reason_is_told_once_with_its_number() -> None:
    web = service(replicas=3)
    tasks = [task(web, slot, FAILED, err="task: non-zero exit (1)") for slot in (1, 2)]
    found = state(web, *tasks, task(web, 3, types_pb2.STARTING, message="starting"))
    assert found.reasons == ("0 of 3 tasks run", "failed: task: non-zero exit (1) (2 tasks)", "starting: starting")


def test_tasks_without_a_word_are_told_by_their_state_and_none_by_nothing() -> None:
    web = service()
    assert state(web, task(web, 1, types_pb2.NEW)).reasons == ("0 of 2 tasks run", "new")
    assert state(web).reasons == ("0 of 2 tasks run",)


def test_reasons_are_bounded() -> None:
    web = service(replicas=20)
    found = state(web, *(task(web, slot, FAILED, err=f"error {slot}") for slot in range(20)))
    assert len(found.reasons) == 6


def test_tasks_of_an_older_spec_do_not_count() -> None:
    web = service()
    old = task(web, 1)
    old.spec_version.index = 3
    old.spec.container.command.append("older")
    assert state(web, old, task(web, 2)).reasons[0] == "1 of 2 tasks run, 1 of an older spec"


def test_a_task_of_an_older_version_counts_where_the_newest_asks_for_the_same() -> None:
    web = service(replicas=1, version=9)
    kept = task(web, 1)
    kept.spec_version.index = 5
    assert state(web, kept).converged


def test_without_versions_the_specs_themselves_are_compared() -> None:
    web = service(replicas=1)
    web.ClearField("spec_version")
    same, other = task(web, 1), task(web, 1)
    other.spec.container.image = "host:other"
    for each in (same, other):
        each.ClearField("spec_version")
    assert state(web, same).converged
    assert not state(web, other).converged


def job(completions: int | None, iteration: int = 3) -> objects_pb2.Service:
    """A job; of None completions one for every node."""
    found = service("st_job")
    if completions is None:
        found.spec.global_job.SetInParent()
    else:
        found.spec.replicated_job.total_completions = completions
    found.job_status.job_iteration.index = iteration
    return found


def run(of: objects_pb2.Service, slot: int, state: int, iteration: int = 3, **fields: object) -> objects_pb2.Task:
    made = task(of, slot, state, **fields)
    made.job_iteration.index = iteration
    return made


def test_a_job_has_converged_when_it_is_complete_as_often_as_it_was_asked_to() -> None:
    two = job(2)
    assert state(two).reasons == ("0 of 2 runs are complete",)
    one = state(two, run(two, 0, COMPLETE), run(two, 1, types_pb2.RUNNING))
    assert (one.running, one.wanted, one.reasons) == (1, 2, ("1 of 2 runs are complete",))
    assert state(two, run(two, 0, COMPLETE, desired_state=COMPLETE), run(two, 1, COMPLETE)).converged
    assert state(job(0)).converged


def test_runs_of_an_earlier_iteration_and_a_slot_that_is_complete_twice_do_not_count() -> None:
    two = job(2)
    earlier = run(two, 1, COMPLETE, iteration=2)
    assert state(two, run(two, 0, COMPLETE), run(two, 0, COMPLETE), earlier).reasons == ("1 of 2 runs are complete",)


def test_a_job_that_fails_says_why() -> None:
    two = job(2)
    failed = run(two, 1, FAILED, err="task: non-zero exit (3)")
    assert state(two, run(two, 0, COMPLETE), failed).reasons == (
        "1 of 2 runs are complete",
        "failed: task: non-zero exit (3)",
    )


def test_a_job_for_every_node_is_complete_on_each() -> None:
    everywhere = job(None)
    tasks = [run(everywhere, 0, COMPLETE, node_id=node_id) for node_id in ("n1", "n2")]
    assert judge([everywhere], tasks, NODES)[0].converged
    assert judge([everywhere], tasks[:1] * 2, NODES)[0].reasons == ("1 of 2 runs are complete",)


def test_a_task_that_runs_and_is_no_longer_wanted_does_not_count() -> None:
    web = service()
    leaving = task(web, 1, desired_state=SHUTDOWN)
    assert state(web, leaving, task(web, 2)).reasons[0].startswith("1 of 2 tasks run")


def test_more_tasks_than_wanted_are_not_converged() -> None:
    web = service(replicas=1)
    assert state(web, task(web, 1), task(web, 2)).reasons == ("2 tasks run, 1 are wanted",)


@pytest.mark.parametrize(
    ("condition", "converged"),
    [
        (types_pb2.RestartPolicy.NONE, True),
        (types_pb2.RestartPolicy.ON_FAILURE, True),
        (types_pb2.RestartPolicy.ANY, False),
    ],
)
def test_finished_work_counts_where_it_is_not_to_be_done_again(condition: int, converged: bool) -> None:
    web = service(replicas=1)
    web.spec.task.restart.condition = condition  # type: ignore[assignment]
    assert state(web, task(web, 1, COMPLETE, desired_state=SHUTDOWN)).converged is converged


def test_an_update_under_way_or_paused_is_told() -> None:
    web = service(replicas=1)
    web.update_status.state = types_pb2.UpdateStatus.PAUSED
    web.update_status.message = "update paused due to failure"
    assert state(web, task(web, 1)).reasons == ("its update is paused: update paused due to failure",)
    web.update_status.state = types_pb2.UpdateStatus.COMPLETED
    assert state(web, task(web, 1)).converged


def test_a_global_service_wants_a_task_on_each_node() -> None:
    web = service()
    getattr(web.spec, "global").SetInParent()
    (found,) = judge([web], [task(web, 0, node_id="n1")], NODES)
    assert (found.running, found.wanted) == (1, 2)


def test_services_are_judged_by_name_with_their_own_tasks() -> None:
    one, two = service("b", 1), service("a", 1)
    assert [(each.name, each.converged) for each in judge([one, two], [task(one, 1)])] == [("a", False), ("b", True)]


def test_names_are_those_of_the_docker_command_line() -> None:
    web = service()
    assert task_name(task(web, 3)) == "st_web.3"
    assert task_name(task(web, 0, node_id="node")) == "st_web.node"
    assert state_name(types_pb2.RUNNING) == "running"


def test_what_is_as_asked_is_not_touched() -> None:
    web = service()
    assert deployment.plan([web.spec], [web]) == deployment.Plan((), (), ())


def test_a_plan_creates_updates_and_removes_by_name() -> None:
    kept, changed, gone = service("c"), service("b"), service("a")
    wanted = service("b", 7).spec
    new = service("d").spec
    plan = deployment.plan([new, wanted, kept.spec], [gone, changed, kept])
    assert plan.create == (new,)
    assert plan.update == ((changed, wanted),)
    assert plan.remove == (gone,)
