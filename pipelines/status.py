"""Where a dataset stands: the funnel of `lrm status`, and everything about one object."""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from dataset.catalog import Catalog
from dataset.errors import BadInput
from dataset.objects import split_asset_id
from dataset.root import read_build
from dataset.storage import Storage
from pipelines.plan import current_states
from pipelines.settings import BuildConfig
from pipelines.state import STAGES, Decider, Decision, ObjectState

__all__ = ["Standing", "inspect_object", "load_standing", "summarise"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Every listed object with its decision, by the configuration of the last build."""

    config: BuildConfig
    states: dict[str, ObjectState]
    decisions: dict[str, Decision]

    @property
    def kept(self) -> list[ObjectState]:
        """The objects whose samples lie in a shard, in the order of their ids."""
        return [
            s for asset_id, s in self.states.items() if self.decisions[asset_id].state == "kept"
        ]


def load_standing(root: Storage) -> Standing:
    """Read the catalog and judge every object anew: verdicts are computed, not stored."""
    config = BuildConfig.load(read_build(root)["config"], where=f"{root.uri}: build.json")
    states = current_states(Catalog(root).current(), config.rig)
    decider = Decider(config)
    decisions = {asset_id: decider.decide(state) for asset_id, state in states.items()}
    return Standing(config=config, states=states, decisions=decisions)


def summarise(standing: Standing) -> dict[str, Any]:
    """The JSON of `lrm status --json`: listed = kept + dropped + failed + pending."""
    states = Counter(decision.state for decision in standing.decisions.values())
    dropped: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for decision in standing.decisions.values():
        if decision.state == "dropped" and decision.dropped is not None:
            dropped[decision.dropped.reason] += 1
        if decision.state == "failed" and decision.failure is not None:
            failed[decision.failure.kind] += 1
    return {
        "listed": len(standing.states),
        "kept": states["kept"],
        "dropped": dict(dropped.most_common()),
        "failed": dict(failed.most_common()),
        "pending": states["pending"],
        "bytes": _bytes(standing),
        "stages": _stages(standing),
        "rig": standing.config.rig,
    }


def inspect_object(root: Storage, asset_id: str) -> dict[str, Any]:
    """The JSON of `lrm inspect --json`: all that is known of one object. Raises BadInput."""
    split_asset_id(asset_id)
    standing = load_standing(root)
    history = Catalog(root).history(asset_id)
    if not history:
        raise BadInput(f"{asset_id}: not in this dataset")
    if asset_id not in standing.states:
        raise BadInput(f"{asset_id}: its source does not list it any more")
    state, decision = standing.states[asset_id], standing.decisions[asset_id]
    failure = decision.failure
    return {
        "asset_id": asset_id,
        "state": decision.state,
        "next_stage": decision.stage,
        "dropped": [
            {name: value for name, value in asdict(verdict).items() if name != "keep"}
            for verdict in decision.verdicts
            if not verdict.keep
        ],
        "failed": failure
        and {
            "stage": failure.stage,
            "kind": failure.kind,
            "message": failure.message,
            "log_tail": failure.data.get("log_tail", ""),
        },
        "record": state.record.to_dict(),
        "measurements": {
            stage: dict(event.data)
            for stage, event in state.results.items()
            if event.status == "ok" and stage != "pack"
        },
        "events": [record.to_dict() for record in history],
        "samples": _samples(state) if decision.state == "kept" else [],
    }


def _samples(state: ObjectState) -> list[dict[str, Any]]:
    packed = state.results["pack"]
    return [{"rig": packed.rig, "shard": packed.data["shard"], "key": packed.data["sample"]}]


def _bytes(standing: Standing) -> dict[str, int]:
    totals = {"fetched": 0, "samples": 0}
    for state in standing.states.values():
        fetched = state.results.get("fetch")
        if fetched is not None:
            totals["fetched"] += int(fetched.data.get("bytes", 0))
    for state in standing.kept:
        totals["samples"] += int(state.results["render"].data.get("bytes", 0))
    return totals


def _stages(standing: Standing) -> dict[str, dict[str, float]]:
    done: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)
    decider = Decider(standing.config)
    for state in standing.states.values():
        for stage, event in state.results.items():
            if event.key == decider.key(stage, state):
                done[stage] += event.status == "ok"
                seconds[stage] += event.seconds
    return {stage: {"done": done[stage], "seconds": round(seconds[stage], 3)} for stage in STAGES}
