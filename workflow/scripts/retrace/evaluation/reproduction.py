"""Compares published numbers with those computed here, row by row, within a tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrace.config.dataset_model import Tolerance
from retrace.errors import DataError
from retrace.evaluation.coverage import coverage_text, is_partial
from retrace.planning.score_settings import ReproductionSettings

VOXELS = "voxels"
"""The ground truth of regions with labels; others are keys of skeletons in evaluation.json."""

OF_NODES = {"voi_split": "node_voi_split", "voi_merge": "node_voi_merge"}
"""Names in evaluation.json of published metrics that count skeleton nodes."""

OPTIONAL = ("splits_needed", "merges_needed")
"""Metrics that may be switched off; if absent they are shown, but not judged."""

COLUMNS = {
    "region": "region",
    "truth": "truth",
    "network": "network",
    "metric": "metric",
    "paper": "paper",
    "ours": "ours",
    "difference": "difference",
    "tolerance": "tolerance",
    "within": "within",
    "ours_at_papers_threshold": "at paper's threshold",
    "note": "note",
}
"""Keys of a row, and their headings in the text table."""

TEXT_COLUMNS = ("region", "truth", "network", "metric", "note")
"""Columns that are aligned to the left."""

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One metric of one network in one region; `within` is None if it is not judged."""

    region: str
    ground_truth: str
    network: str
    metric: str = ""
    paper: float | None = None
    ours: float | None = None
    ours_at_papers_threshold: float | None = None
    tolerance: float | None = None
    within: bool | None = None
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Our value minus the paper's."""
        if self.paper is None or self.ours is None:
            return None
        return self.ours - self.paper

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        content = asdict(self)
        named = {"region": content.pop("region"), "truth": content.pop("ground_truth")}
        return {**named, **content, "difference": self.difference}


def allowed(tolerance: Tolerance | None, paper: float) -> float | None:
    """The largest difference that passes: `absolute` plus `relative` times the paper's value."""
    if tolerance is None:
        return None
    relative = float(tolerance.relative or 0) * abs(paper)
    return float(tolerance.absolute or 0) + relative


def compare_with_published(
    settings: ReproductionSettings,
    published: Mapping[str, Any],
    evaluations: Mapping[str, Mapping[str, Any]],
) -> list[Row]:
    """A row for each metric of each requested or published network, region and ground truth.

    A row fails if a requested network has no published number, or no evaluation. A row is not
    judged if the paper gives no number (null), or if we do not compute the network (FFN).
    """
    rows: list[Row] = []
    for region in settings.regions:
        for ground_truth, networks in published["regions"][region].items():
            for network in dict.fromkeys([*settings.networks, *networks]):
                place = (region, ground_truth, network)
                rows += _network_rows(settings, place, networks, evaluations)
    return rows


def _network_rows(
    settings: ReproductionSettings,
    place: tuple[str, str, str],
    networks: Mapping[str, Any],
    evaluations: Mapping[str, Mapping[str, Any]],
) -> Iterator[Row]:
    region, _, network = place
    if network not in settings.networks:
        yield Row(*place, note="not computed here")
    elif network not in networks:
        yield Row(*place, within=False, note="no published number in the project")
    elif networks[network] is None:
        yield Row(*place, note="the paper gives none")
    elif network not in evaluations:
        yield Row(*place, within=False, note="no evaluation")
    else:
        result = _region(evaluations[network], region, network)
        yield from _metric_rows(settings, place, networks[network], result)


def _region(evaluation: Mapping[str, Any], region: str, network: str) -> Mapping[str, Any]:
    for result in evaluation["volumes"].values():
        if result["volume"] == region:
            of_region: Mapping[str, Any] = result
            return of_region
    raise DataError(f"the evaluation of {network!r} has no region {region!r}; evaluate again")


def _metric_rows(
    settings: ReproductionSettings,
    place: tuple[str, str, str],
    paper: Numbers,
    result: Mapping[str, Any],
) -> Iterator[Row]:
    numbers, curve = _own_numbers(result, place[1], settings.threshold)
    is_part = place[1] == VOXELS and is_partial(result)
    covered = f"scored {coverage_text(result)}" if is_part else ""
    papers_threshold = paper.get("threshold", -1)
    same = next((row for row in curve if abs(row["threshold"] - papers_threshold) < 1e-6), {})
    for metric, value in paper.items():
        mine = numbers.get(metric)
        limit = allowed(settings.tolerance.get(metric), value)
        judged = limit is not None and not (mine is None and metric in OPTIONAL)
        within = None
        if judged and limit is not None:
            within = mine is not None and abs(mine - value) <= limit
        note = covered if mine is not None else "not computed"
        at_papers = same.get(metric) if metric != "threshold" else None
        yield Row(*place, metric, value, mine, at_papers, limit, within, note)


def _own_numbers(
    result: Mapping[str, Any], ground_truth: str, policy: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Our metrics of a region by their published names: chosen as in the paper, and the curve."""
    source = result if ground_truth == VOXELS else result.get(ground_truth)
    if source is None or (ground_truth == VOXELS and result["counted"] != VOXELS):
        return {}, []
    curve = [_named(row, ground_truth) for row in source["curve"]]
    if policy == "best_on_test":
        return min(curve, key=lambda row: row["voi_sum"]), curve
    numbers = _named(source, ground_truth) | {"threshold": result["threshold"]}
    return numbers | dict(source.get("min_cut", {})), curve


def _named(row: Mapping[str, Any], ground_truth: str) -> dict[str, Any]:
    if ground_truth == VOXELS:
        return dict(row)
    named = dict(row) | {name: row[key] for name, key in OF_NODES.items()}
    return named | {"voi_sum": named["voi_split"] + named["voi_merge"]}


def passes(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether at least one number was judged, and all of them are within their tolerance."""
    judged = [row["within"] for row in rows if row["within"] is not None]
    return bool(judged) and all(judged)


def reproduction_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a text table."""
    lines = [list(COLUMNS.values()), *([_cell(row, key) for key in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(width) if key in TEXT_COLUMNS else cell.rjust(width)
        for key, cell, width in zip(COLUMNS, cells, widths, strict=True)
    )
    return "  ".join(padded).rstrip()


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if name == "within":
        return {True: "yes", False: "NO", None: ""}[value]
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
