"""What ``ps`` prints, cut down to a task; what control groups and /proc say of its use; names of signals."""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.executor import usage
from runtime.executor.keeper import KNOWS_NO
from runtime.executor.keeper_client import KeeperRefused
from runtime.executor.process_controller import ProcessController
from runtime.executor.ps import ARGUMENTS_MAX, parse, run_ps
from runtime.executor.signals import signal_number

EF = """UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 08:00 ?        00:00:01 /sbin/init  --x
nobody        77       1  0 08:00 ?        00:00:00 sh -c  a; b
root         123      77  0 08:00 ?        00:00:00 sleep 1
"""


def test_only_the_tasks_own_processes_are_told_and_their_commands_whole() -> None:
    found = parse(EF, {77, 123})
    assert found.titles == ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
    assert [row[1] for row in found.rows] == ["77", "123"]
    assert found.rows[0][-1] == "sh -c a; b"


@pytest.mark.parametrize("text", ["", "COMMAND\nsh\n", "USER\n"])
def test_without_a_column_of_pids_nothing_can_be_told(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(text, {1})
    assert refused.value.text == "Couldn't find PID field in ps output"


def test_a_pid_that_is_none_is_said() -> None:
    with pytest.raises(Refused, match="Unexpected pid 'x'"):
        parse("PID CMD\nx sh\n", {1})


needs_ps = pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps here")


def ps(arguments: str) -> Any:
    return asyncio.run(run_ps(arguments, {os.getpid()}))


@needs_ps
def test_ps_of_this_machine_is_asked_with_the_words_that_were_given() -> None:
    assert ps("-o pid,ppid -e").rows == ((str(os.getpid()), str(os.getppid())),)
    assert len(ps("-ef").rows) == 1


@needs_ps
def test_what_ps_complains_of_is_told_in_its_words() -> None:
    with pytest.raises(Refused) as refused:
        ps("--nonsense")
    itself = subprocess.run(
        ["ps", "--nonsense"], check=False, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    )
    assert refused.value.text == f"ps: {itself.stderr.strip().splitlines()[0]}"


@pytest.mark.parametrize("arguments", ["-e" * ARGUMENTS_MAX, "-o\0pid"])
def test_arguments_that_no_ps_takes_are_not_given_to_one(arguments: str) -> None:
    with pytest.raises(Refused) as refused:
        ps(arguments)
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_a_machine_without_ps_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Refused, match='exec: "ps": no such file'):
        ps("-ef")


# Use


def record(*paths: pathlib.Path, pid: int = 0) -> dict[str, Any]:
    return {"id": "no-such-task", "pid": pid or os.getpid(), "cgroups": [str(path) for path in paths]}


def files(directory: pathlib.Path, **texts: str) -> pathlib.Path:
    directory.mkdir(exist_ok=True)
    for name, text in texts.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def test_a_unified_group_says_all_but_what_was_read_and_written(tmp_path: pathlib.Path) -> None:
    group = files(
        tmp_path,
        cgroup__procs=f"{os.getpid()}\n",
        cpu__stat="usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\n",
        memory__current="4096\n",
        memory__max="max\n",
        memory__peak="8192\n",
        memory__stat="anon 100\ninactive_file 50\n",
        pids__current="3\n",
        pids__max="20\n",
    )
    found = usage.take(record(group))
    assert found["cpu_stats"]["cpu_usage"] == {
        "total_usage": 1_500_000, "usage_in_kernelmode": 500_000, "usage_in_usermode": 1_000_000,
    }  # fmt: skip
    assert found["cpu_stats"]["throttling_data"] == {"periods": 7, "throttled_periods": 2, "throttled_time": 9000}
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["memory_stats"] == {
        "usage": 4096, "limit": machine, "max_usage": 8192, "stats": {"anon": 100, "inactive_file": 50},
    }  # fmt: skip
    assert found["pids_stats"] == {"current": 3, "limit": 20}


def test_groups_of_the_first_version_say_it_each_for_its_controller(tmp_path: pathlib.Path) -> None:
    cpu = files(
        tmp_path / "cpu",
        cgroup__procs="",
        cpuacct__usage="2000000000\n",
        cpuacct__usage_percpu="1500000000 500000000 \n",
        cpuacct__stat="user 100\nsystem 50\n",
        cpu__stat="nr_periods 1\nnr_throttled 1\nthrottled_time 77\n",
    )
    memory = files(
        tmp_path / "memory",
        memory__usage_in_bytes="1000\n",
        memory__limit_in_bytes="2000\n",
        memory__max_usage_in_bytes="1500\n",
    )
    found = usage.take(record(cpu, memory))
    times = found["cpu_stats"]["cpu_usage"]
    assert (times["total_usage"], times["percpu_usage"]) == (2_000_000_000, [1_500_000_000, 500_000_000])
    assert times["usage_in_usermode"] == 100 * (usage.NANOS // usage.TICKS)
    assert found["cpu_stats"]["throttling_data"]["throttled_time"] == 77
    assert found["memory_stats"] == {"usage": 1000, "limit": 2000, "max_usage": 1500, "stats": {}}
    assert found["pids_stats"] == {"current": 0}


def test_no_limit_of_the_first_version_is_the_machines_memory(tmp_path: pathlib.Path) -> None:
    group = files(tmp_path, memory__limit_in_bytes="9223372036854771712\n")
    limit = usage.take(record(group))["memory_stats"]["limit"]
    assert limit == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_without_groups_the_processes_themselves_are_asked() -> None:
    """A task's own session is counted by /proc; that of the tests may be led from outside their namespace of pids."""
    busy = [sys.executable, "-c", "sum(range(3_000_000)); print('ready', flush=True); input()"]
    with subprocess.Popen(busy, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as task:
        assert task.stdout is not None
        task.stdout.readline()
        found = usage.take(record(pid=task.pid))
        assert usage.members(record(pid=task.pid)) == [task.pid]
    assert found["pids_stats"]["current"] == 1
    assert found["memory_stats"]["usage"] > 1 << 20
    assert found["cpu_stats"]["system_cpu_usage"] > found["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert found["cpu_stats"]["online_cpus"] == os.cpu_count()
    assert found["read"].endswith("Z")


def test_processes_that_are_gone_are_passed_over(tmp_path: pathlib.Path) -> None:
    group = files(tmp_path, cgroup__procs="999999999\n")
    found = usage.take(record(group))
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert found["blkio_stats"] == {"io_service_bytes_recursive": []}


def test_what_was_read_and_written_is_that_of_all_processes(tmp_path: pathlib.Path) -> None:
    proc = tmp_path / "proc"
    for pid in (5, 6):
        files((proc / str(pid)).parent)
        files(proc / str(pid), io="rchar: 9\nread_bytes: 10\nwrite_bytes: 4\n")
    files(proc, stat="cpu 1 2 3 4 5 6 7 8 9 10\n")
    group = files(tmp_path / "group", cgroup__procs="5\n6\n7\n")
    found = usage.take(record(group), str(proc))
    assert found["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 0, "minor": 0, "op": "read", "value": 20},
        {"major": 0, "minor": 0, "op": "write", "value": 8},
    ]
    assert found["cpu_stats"]["system_cpu_usage"] == 36 * (usage.NANOS // usage.TICKS)


# Signals


@pytest.mark.parametrize(
    ("text", "number"),
    [("KILL", 9), ("sigterm", 15), ("9", 9), ("RTMIN", 34), ("RTMIN+3", 37), ("SIGUSR1", signal.SIGUSR1)],
)
def test_signals_go_by_name_and_number(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "NOPE", "0", "65", "-9", "TERM+1", "RTMIN+", "RTMIN+99", "SIG", "²"])
def test_what_is_no_signal_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="no signal"):
        signal_number(text)


@given(st.text(max_size=12))
def test_every_text_is_a_signal_or_said_to_be_none(text: str) -> None:
    try:
        assert 0 < signal_number(text) < signal.NSIG
    except ValueError as error:
        assert str(error) == f"{text} is no signal"


def test_a_keeper_of_an_older_version_says_that_it_is() -> None:
    said = ProcessController.own_refusal
    old = said(KeeperRefused("unknown", f"{KNOWS_NO} run"))
    assert old is not None
    assert old.code is Code.UNIMPLEMENTED
    assert "older version" in old.text
    others = [said(KeeperRefused(*each)) for each in (("unknown", "task t does not run"), ("temporary", "no process"))]
    assert [each and each.code for each in others] == [Code.FAILED_PRECONDITION, Code.UNAVAILABLE]
    assert said(OSError(5, "x")) is None
