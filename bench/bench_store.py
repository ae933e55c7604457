"""The store alone: transactions a second with encoding and publishing, and finds, at two sizes."""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime.store.changes import apply, encode_request
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.wire.pb import objects_pb2 as pb


def service(number: int) -> pb.Service:
    obj = pb.Service(id=f"{number:025d}")
    obj.spec.annotations.name = f"service-{number}"
    obj.spec.task.container.image = "host"
    obj.spec.task.container.args.extend(["sleep", "1d"] * 20)
    return obj


def write(view: View, number: int) -> View:
    transaction = Transaction(view, view.version, 1.0)
    transaction.create(service(number))
    encode_request(number, transaction.changes)
    return apply(view, transaction.changes, view.version + 1)


def microseconds(function: Callable[[int], object], count: int) -> float:
    begun = time.perf_counter()
    for number in range(count):
        function(number)
    return (time.perf_counter() - begun) / count * 1e6


def main() -> None:
    for size in (100, 20_000):
        view = View()
        for number in range(size):
            view = write(view, number)
        state = [view]

        def one(number: int, state: list[View] = state, size: int = size) -> None:
            state[0] = write(state[0], size + number)

        made = microseconds(service, 2000)
        took = microseconds(one, 2000)
        find = microseconds(lambda n, view=view: view.find(pb.Service, "name", f"service-{n % 100}"), 20_000)  # type: ignore[misc]
        print(f"{size:6} objects: write {took - made:6.1f} us ({service(1).ByteSize()} bytes), find {find:5.2f} us")


if __name__ == "__main__":
    main()
