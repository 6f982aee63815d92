"""The report as one self-contained HTML file, from its data and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from core import quantities
from filters.chain import filter_title, reason_title, value_text
from pipelines.building.estimates.throughput import Timeline, builds, timeline
from pipelines.building.stages.part_titles import part_title
from pipelines.report.gather import ReportData
from pipelines.report.thumbnails import Picture

__all__ = ["FunnelRow", "funnel", "render_page"]

_TEMPLATE = "report.html.j2"
_MAX_BUILDS = 12
"""Rows of the table of builds, the newest ones."""


@dataclass(frozen=True, kw_only=True)
class FunnelRow:
    """One bar of the funnel: the objects that leave here, and those that remain."""

    kind: str
    """`listed`, `dropped`, `failed`, `pending` or `kept`; it determines the colour."""
    label: str
    detail: str
    count: int
    """Objects that leave the funnel here."""
    left: int
    """Objects that remain after this row."""


def render_page(data: ReportData, pictures: Mapping[str, Picture]) -> str:
    """Return the HTML of a report, with all names, tags and messages escaped.

    They come from the source of the objects, so they are not trusted.
    """
    environment = Environment(
        loader=PackageLoader("pipelines.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "objects": lambda value: f"{value:,} object" + "s" * (value != 1),
        "size": quantities.size,
        "short": quantities.short_duration,
    }
    environment.filters["reason"] = reason_title
    environment.filters["title_of_filter"] = filter_title
    environment.filters["part_title"] = part_title
    chart = timeline(data.outcomes)
    return environment.get_template(_TEMPLATE).render(
        data=data,
        pictures=pictures,
        summary=data.summary,
        funnel=funnel(data),
        reasons=_in_chain_order(data),
        kinds=_largest_first(data.summary["failed"]),
        purpose_of={
            reason: next(f.purpose for f in data.filters if f.name == _filter_of(data, reason))
            for reason in data.dropped
        },
        stages=_stages(data.summary["stages"]),
        chart=None if chart is None else _chart(chart),
        builds=builds(data.outcomes)[-_MAX_BUILDS:],
        percent=quantities.percent,
        moment=_moment,
        value_text=value_text,
    )


def funnel(data: ReportData) -> list[FunnelRow]:
    """Return the rows in order: listed, the filters of the chain, failures, pending, kept."""
    summary = data.summary
    left = summary["listed"]
    rows = [_row("listed", "listed", "", left, left)]
    by_filter: dict[str, list[str]] = {}
    for reason in _in_chain_order(data):
        by_filter.setdefault(_filter_of(data, reason), []).append(reason)
    for link in data.filters:
        reasons = by_filter.get(link.name, [])
        if link.enabled or reasons:
            count = sum(summary["dropped"][reason] for reason in reasons)
            left -= count
            detail = ", ".join(map(reason_title, reasons))
            rows.append(_row("dropped", filter_title(link.name), detail, count, left))
    for kind in _largest_first(summary["failed"]):
        left -= summary["failed"][kind]
        rows.append(_row("failed", kind, "failed", summary["failed"][kind], left))
    left -= summary["pending"]
    rows.append(_row("pending", "pending", "not finished yet", summary["pending"], left))
    rows.append(_row("kept", "kept", "", summary["kept"], left))
    return rows


def _filter_of(data: ReportData, reason: str) -> str:
    return data.dropped[reason][0].verdict.filter


def _in_chain_order(data: ReportData) -> dict[str, int]:
    """Return the counts of the reasons in the order of the filters, and the largest first."""
    position = {link.name: i for i, link in enumerate(data.filters)}
    counts = _largest_first(data.summary["dropped"])
    return dict(sorted(counts.items(), key=lambda item: position[_filter_of(data, item[0])]))


def _row(kind: str, label: str, detail: str, count: int, left: int) -> FunnelRow:
    return FunnelRow(kind=kind, label=label, detail=detail, count=count, left=left)


def _largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _stages(stages: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the times of the stages and of their parts; widths are percent of the longest stage.

    A part may contain another one (`colour` contains `sample` and `denoise`), so the parts are
    separate bars, not a sum.
    """
    longest = max((values["seconds"] for values in stages.values()), default=0) or 1
    return [
        {
            "name": name,
            "done": values["done"],
            "seconds": values["seconds"],
            "mean": values["seconds"] / values["done"] if values["done"] else None,
            "width": 100 * values["seconds"] / longest,
            "parts": [
                {"name": part, "seconds": seconds, "width": 100 * seconds / longest}
                for part, seconds in values["parts"].items()
            ],
        }
        for name, values in stages.items()
    ]


@dataclass(frozen=True, kw_only=True)
class _Chart:
    """A stacked bar chart over time, in a box of 100 units height and one unit per bar."""

    bars: Sequence[tuple[int, str, float, float]]
    """(index of the bar, outcome, top, height)."""
    num_bars: int
    bar_length: str
    """The time that one bar covers, as text."""
    highest: int
    """The number of objects at the top of the box."""
    labels: Sequence[tuple[float, str]]
    """(position in percent, time)."""


def _chart(history: Timeline) -> _Chart:
    totals = [sum(counts) for counts in zip(*history.counts.values(), strict=True)]
    highest = _round_up(max(totals))
    bars = []
    for index in range(history.num_bars):
        top = 100.0
        for outcome, counts in history.counts.items():
            height = 100 * counts[index] / highest
            if height:
                top -= height
                bars.append((index, outcome, round(top, 3), round(height, 3)))
    return _Chart(
        bars=bars,
        num_bars=history.num_bars,
        bar_length=quantities.round_duration(history.bar_seconds),
        highest=highest,
        labels=_labels(history),
    )


def _labels(history: Timeline, count: int = 4) -> list[tuple[float, str]]:
    span = timedelta(seconds=history.bar_seconds * history.num_bars)
    form = "%d %b" if span > timedelta(days=4) else "%d %b %H:%M"
    form = "%H:%M:%S" if span < timedelta(hours=1) else form
    shares = [i / count for i in range(count + 1)]
    return [(100 * share, (history.started + span * share).strftime(form)) for share in shares]


def _round_up(value: int) -> int:
    """Return the next number that is 1, 2, 4, 6 or 8 times a power of ten: even, or 1."""
    power = 10 ** (len(str(value)) - 1)
    return next(k * power for k in (1, 2, 4, 6, 8, 10) if k * power >= value)


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
