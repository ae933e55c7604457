"""Figures as Prometheus' text. Its library is the extra ``metrics``, loaded with the first question; nothing is
registered with it: each answer is made anew from what there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from runtime.errors import Code, Refused
from runtime.introspection.metrics import Family, Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MISSING: Final = "metrics need the extra 'metrics': pip install 'swarmlet[metrics]'"


def require() -> None:
    """Refused UNIMPLEMENTED if the library is not there."""
    _library()


def text(families: Sequence[Family]) -> bytes:
    """The answer to a scrape; Refused UNIMPLEMENTED without the library."""
    core, exposition = _library()
    registry = core.CollectorRegistry(auto_describe=False)
    registry.register(_Collector(core, families))
    answer: bytes = exposition.generate_latest(registry)
    return answer


def _library() -> tuple[Any, Any]:
    try:
        from prometheus_client import core, exposition
    except ModuleNotFoundError as missing:
        if missing.name != "prometheus_client":
            raise
        raise Refused(Code.UNIMPLEMENTED, MISSING) from None
    return core, exposition


class _Collector:
    """Hands the families over in the library's own classes."""

    def __init__(self, core: Any, families: Iterable[Family]) -> None:
        self._core = core
        self._families = families

    def collect(self) -> Iterator[Any]:
        """Each family once."""
        kinds = {
            "gauge": self._core.GaugeMetricFamily,
            "counter": self._core.CounterMetricFamily,
            "histogram": self._core.HistogramMetricFamily,
        }
        for family in self._families:
            made = kinds[family.kind](family.name, family.help, labels=family.labels)
            for labels, value in family.samples:
                if isinstance(value, Histogram):
                    made.add_metric(labels, buckets=value.buckets, sum_value=value.sum)
                else:
                    made.add_metric(labels, value)
            yield made
