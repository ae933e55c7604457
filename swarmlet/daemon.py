"""``swarmlet daemon``: a node for good, as dockerd is one.

Rules it owns: what the process as a whole gets (signals, logging, the interpreter's switch interval) is set here and
nowhere else; one daemon a data root and a pidfile; tasks go on after the daemon unless told otherwise; SIGTERM ends it
within ``STOP_S`` seconds, and what does not end by then is named and left.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import resource
import signal
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from runtime.engine_api.sockets import TlsListener
from runtime.executor.procfs import OPEN_FILES_MARK
from swarmlet import __version__, logs, places
from swarmlet.errors import EXIT_FAILED, EXIT_OK, StartError
from swarmlet.executors import ContainerExecutor, ExecutorFactory, ProcessExecutor
from swarmlet.node import Node
from swarmlet.options import DaemonOptions

log = logging.getLogger("swarmlet.daemon")

SWITCH_INTERVAL_S: Final = 0.002
"""Threads that compute hold a heartbeat back for less than 100 ms with this, for up to 250 ms with CPython's 5 ms. With
0.5 ms it would be 25 ms, but a write would cost a tenth more: each switch wakes a thread that waits."""
STOP_S: Final = 4.5
GC_THRESHOLDS: Final = (10_000, 20, 50)
"""A write makes some hundred objects that live for a moment: CPython's 700 would collect several times for each."""
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


def run(options: DaemonOptions) -> int:
    """Runs a node until a signal; the exit code. Raises StartError."""
    _set_up_process(options.log_level, options.log_format)
    asked = StopRequest()
    places.make_private(options.exec_root, os.getuid())
    _load_http_library()
    with pidfile(options.pidfile):
        node = make_node(options)
        node.start()
        log.info("swarmlet %s listens on %s", __version__, ", ".join(options.unix_hosts) or "TLS addresses")
        if node.metrics_address is not None:
            log.info("metrics are at http://%s:%d/metrics", *node.metrics_address)
        _settle_memory()
        asked.wait()
        log.info("stopping")
        return _stop(node, options.stop_tasks_on_exit)


class StopRequest:
    """SIGTERM or SIGINT, to be waited for by the main thread.

    The kernel may hand a signal to any thread, and Python's handlers run on the main thread alone: one that waits for
    a lock would sleep on. So it waits for a byte, which the handler below Python writes whichever thread it runs on.
    """

    def __init__(self) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self._reader, True)
        self._asked = False
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        signal.signal(signal.SIGHUP, _ignore)

    def wait(self) -> None:
        """Returns once a signal has asked for the end; main thread only."""
        while not self._asked:
            os.read(self._reader, 64)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def _load_http_library() -> None:
    """aiohttp reads this machine's certificate authorities twice as it is loaded, for clients that ask by its defaults.
    Nobody here does: ours bring their roots. With none to read, a start is 35 ms and the daemon 2 MiB less."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, os.devnull))
    try:
        importlib.import_module("aiohttp")
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)


def _settle_memory() -> None:
    """What was loaded stays for good: the collector need not look at it, not even once. It would find next to nothing,
    and hold up the node's first answer."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


def make_node(options: DaemonOptions) -> Node:
    """The node of these options, not started."""
    return Node(
        options.data_root,
        listen="0.0.0.0:2377",  # the engine's default; init and join name their own
        default_advertise_addr=options.default_advertise_addr,
        executor=make_executor(options),
        name="swarmlet",
        hostname=options.hostname,
        run_dir=options.exec_root,
        api_sockets=options.unix_hosts,
        tls=tls_listeners(options),
        group=options.group,
        heartbeat_tick=options.heartbeat_tick,
        election_tick=options.election_tick,
        metrics=options.metrics,
        remote_exec=options.remote_exec,
    )


def make_executor(options: DaemonOptions) -> ExecutorFactory:
    """How this daemon's tasks are run."""
    if options.executor != "process":
        return ContainerExecutor(
            options.engine_socket or None, options.executor, options.generic_resources, options.local_networks
        )
    return ProcessExecutor(
        linger=None,
        task_user=options.task_user,
        require_limits=options.require_limits,
        generic_resources=options.generic_resources,
    )


def tls_listeners(options: DaemonOptions) -> list[TlsListener]:
    """The TCP addresses with what guards them: nobody gets in without a certificate of the given authority."""
    if not options.tls_hosts:
        return []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(options.tls_ca)
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:  # SSLError is one
        files = f"{options.tls_ca}, {options.tls_cert} and {options.tls_key}"
        raise StartError(f"cannot use {files} for TLS: {error}") from None
    return [TlsListener(each.host, each.port, context) for each in options.tls_hosts]


def _set_up_process(level: str, log_format: str) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _raise_open_files()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logs.JsonFormatter() if log_format == "json" else logs.TextFormatter())
    logging.basicConfig(level=LEVELS[level], handlers=[handler])


def _raise_open_files() -> None:
    """Each connection of an agent holds three files: the usual soft limit would be that of the swarm. Tasks keep it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.environ.setdefault(OPEN_FILES_MARK, str(soft))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _ignore(number: int, frame: FrameType | None) -> None:
    log.info("signal %d is ignored: nothing can be configured anew while the daemon runs", number)


def _stop(node: Node, stop_tasks: bool) -> int:
    """Stops the node. Keeping tasks has a limit in time; stopping them takes as long as their grace periods."""
    if stop_tasks:
        node.stop(tasks="stop")
        return EXIT_OK
    failed: list[BaseException] = []

    def stop() -> None:
        try:
            node.stop(tasks="keep")
        except BaseException as error:  # noqa: BLE001 - it decides about the exit code
            failed.append(error)

    stopping = threading.Thread(target=stop, name="swarmlet-stop", daemon=True)
    stopping.start()
    stopping.join(STOP_S)
    if stopping.is_alive():
        names = ", ".join(sorted(thread.name for thread in threading.enumerate() if thread.name != "MainThread"))
        log.error("not everything ended within %g s; still running: %s", STOP_S, names)
        logging.shutdown()
        os._exit(EXIT_FAILED)  # an ordinary exit could wait for what does not end
    for error in failed:
        log.error("the stop went wrong: %s", error, exc_info=error)
    return EXIT_FAILED if failed else EXIT_OK


@contextlib.contextmanager
def pidfile(path: str) -> Iterator[None]:
    """Holds a file with this process's id. StartError if the process that one names still runs."""
    if not path:
        yield
        return
    file = Path(path)
    try:
        other = file.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        other = ""
    except OSError as error:
        raise StartError(f"cannot read the pidfile {path}: {error.strerror or error}") from None
    if other.isdigit() and int(other) != os.getpid() and Path(f"/proc/{other}").exists():
        raise StartError(
            f"failed to start daemon, ensure it is not running or delete {path}: "
            f"process with PID {other} is still running"
        )
    try:
        file.write_text(f"{os.getpid()}", encoding="ascii")
    except OSError as error:
        raise StartError(f"cannot write the pidfile {path}: {error.strerror or error}") from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
