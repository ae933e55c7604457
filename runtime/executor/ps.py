"""``ps`` of this machine, cut down to the processes of one task.

Rules: the arguments are the caller's words, given to ``ps`` as they are and never to a shell; what it prints needs a
column of process ids; what it complains of is told in its own words, as the engine does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection

from runtime.errors import Code, Refused
from runtime.executor.inspection import Processes

SECONDS = 10.0
ARGUMENTS_MAX = 1000
PID = "PID"


async def run_ps(arguments: str, pids: Collection[int]) -> Processes:
    """The rows of these processes. Refused for arguments that ``ps`` does not take, and where there is no ``ps``."""
    if len(arguments) > ARGUMENTS_MAX or "\0" in arguments:
        raise Refused(Code.INVALID_ARGUMENT, "arguments that no ps takes")
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *arguments.split(), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=env
        )
    except OSError as error:
        raise Refused(Code.UNKNOWN, f'exec: "ps": {(error.strerror or str(error)).lower()}') from error
    try:
        async with asyncio.timeout(SECONDS):
            out, complaint = await process.communicate()
    except TimeoutError:
        raise Refused(Code.DEADLINE_EXCEEDED, f"ps did not end within {SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = complaint.decode("utf-8", "replace").strip().splitlines()
        raise Refused(Code.UNKNOWN, f"ps: {lines[0]}" if lines else f"ps: exit status {process.returncode}")
    return parse(out.decode("utf-8", "replace"), pids)


def parse(text: str, pids: Collection[int]) -> Processes:
    """The table that ``ps`` printed, without the processes that are not meant. The last column may have spaces."""
    head, *lines = text.splitlines() or [""]
    titles = head.split()
    if PID not in titles:
        raise Refused(Code.UNKNOWN, "Couldn't find PID field in ps output")
    place, last, rows = titles.index(PID), len(titles) - 1, []
    for line in lines:
        fields = line.split()
        if len(fields) <= place:
            continue
        if not fields[place].isdigit():
            raise Refused(Code.UNKNOWN, f"Unexpected pid '{fields[place]}'")
        if int(fields[place]) in pids:
            rows.append((*fields[:last], " ".join(fields[last:])))
    return Processes(tuple(titles), tuple(rows))
