"""Streams go on with another number of replicas, row by row, or say before anything is started that they cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional

from hpcvideo.errors import InputError
from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.schedule import Rule
from hpcvideo.methods.sideways.streams import Streams, check_streams, deal, replicas_in_files, streams_in
from hpcvideo.runs import read_events
from tests.conftest import run_hpcvideo
from tests.methods.sideways.small import Record, make_network, run, video
from tests.methods.sideways.test_ranks import SKIP_MAPS, SKIPS, facts, run_cases

PLAIN = {"dropout": 0.0, "mixup": 0, "recipe": {"gradient_clip": 0.5}}
"""Draws of dropout and mixup belong to a replica; with them other replicas are another training anyway."""

KINDS = {
    "every2": {"method": "skip_sideways", "model": SKIPS, "options": {"boundary": "stream", "update_every": 2}},
    "delayed": {"method": "delayed", "model": SKIPS, "options": {"boundary": "stream"}},
}


def case(kind: str, replicas: int, steps: list[int], stages: int = 1, **changes: Any) -> dict[str, Any]:
    """Four streams on so many replicas."""
    chosen = {**KINDS[kind], **PLAIN}
    if stages > 1:
        chosen["options"] = {**KINDS[kind]["options"], "stages": stages, "placement": SKIP_MAPS["two-interleaved"]}  # type: ignore[dict-item]
    return {**chosen, "micro": 4 // replicas, "ranks": replicas * stages, "steps": steps, **changes}


FRAMES = 12


def taught(rows: slice) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """The mean loss of some of four clips."""
    labels = torch.arange(4)[rows] % 3
    return lambda outputs, ago: functional.cross_entropy(outputs, labels)


def shown(replicas: int, clips: list[int], rule: Rule, states: Sequence[dict[str, torch.Tensor]] = ()) -> list[Record]:
    """Each replica's run of its rows of these clips, from a state where there are any; weights are frozen."""
    records = []
    for replica in range(replicas):
        rows = slice(replica * 4 // replicas, (replica + 1) * 4 // replicas)
        videos = [video(FRAMES, batch=4, seed=40 + clip)[rows] for clip in clips]

        def load(executor: Executor, replica: int = replica) -> None:
            if states:
                executor.load(states[replica])

        records.append(run(make_network("skips", FRAMES), videos, "stream", rule, taught(rows), load))
    return records


@pytest.mark.parametrize("rule", ["sideways", "delayed"])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2)])
def test_gradients_behind_a_seam_are_those_of_one_replica_that_never_stopped(rule: Rule, before: int, after: int) -> None:
    """In double precision; each replica's is a mean over its rows, so theirs is the mean of these."""
    (whole,) = shown(1, [0, 1], rule)
    state: dict[str, torch.Tensor] = {}
    for replica, record in enumerate(shown(before, [0], rule)):
        state |= {f"under_way/{replica}/{name}": tensor for name, tensor in record.executor.state().items()}
    there, now = Streams(before, 4 // before), Streams(after, 4 // after)
    assert streams_in({name: tensor.shape for name, tensor in state.items()}) == there
    parts = shown(after, [1], rule, [deal(state, rule, there, now, replica) for replica in range(after)])
    later = [key for key in whole.gradients if key[1] > FRAMES]
    assert len(later) == len(parts[0].gradients) and any(whole.ago[key] == 1 for key in later)
    for unit, step in later:
        for name, expected in whole.gradients[unit, step].items():
            found = torch.stack([part.gradients[unit, step - FRAMES][name] for part in parts]).mean(0)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.fixture(scope="module")
def dealt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps without a stop, and two halves with other replicas in each."""
    folder = tmp_path_factory.mktemp("dealt")
    cases: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        cases |= {f"{kind}-whole": case(kind, 1, [0, 4]), f"{kind}-half": case(kind, 1, [0, 2])}
        cases[f"{kind}-half-of-two"] = case(kind, 2, [0, 2])
    for kind in KINDS:
        cases[f"{kind}-on-two"] = case(kind, 2, [2, 4], load=str(folder / f"{kind}-half"))
        cases[f"{kind}-on-one"] = case(kind, 1, [2, 4], load=str(folder / f"{kind}-half-of-two"))
        cases[f"{kind}-forgetful"] = case(kind, 1, [2, 4], load=str(folder / f"{kind}-half"), without_extra=True)
    cases["every2-on-two-of-two"] = case("every2", 2, [2, 4], stages=2, load=str(folder / "every2-half"))
    run_cases(folder, cases)  # one after another, so a case finds what those before it left
    return folder


def distance(folder: Path, one: str, other: str) -> float:
    """The largest difference of any weight."""
    ours, theirs = load_file(folder / f"{one}.weights"), load_file(folder / f"{other}.weights")
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.faults
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_stream_goes_on_with_more_and_with_fewer_replicas_as_if_it_had_never_stopped(dealt: Path, kind: str) -> None:
    """But for the order of sums. What is under way matters far more than that: without it the weights go another way."""
    assert distance(dealt, f"{kind}-whole", f"{kind}-on-two") < 2e-6
    assert distance(dealt, f"{kind}-whole", f"{kind}-on-one") < 2e-6
    assert distance(dealt, f"{kind}-whole", f"{kind}-forgetful") > 1e-3
    for name in (f"{kind}-on-two", f"{kind}-on-one"):
        losses = [rank["losses"] for rank in facts(dealt, name)]
        mean = [sum(step) / len(step) for step in zip(*losses, strict=True)]
        assert mean == pytest.approx(facts(dealt, f"{kind}-whole")[0]["losses"][2:], rel=1e-4)


@pytest.mark.faults
def test_it_does_so_with_units_on_other_ranks_as_well(dealt: Path) -> None:
    assert distance(dealt, "every2-on-two", "every2-on-two-of-two") == 0.0


def test_other_numbers_of_streams_and_clips_that_were_mixed_are_refused() -> None:
    before = Streams(2, 4)
    check_streams(before, Streams(4, 2), mixed=False, drawn=False)
    words = r"has 8 streams under way \(2 replicas with 4 clips at once\), but here would be 4 \(1 x 4\)"
    with pytest.raises(InputError, match=words):
        check_streams(before, Streams(1, 4), mixed=False, drawn=False)
    with pytest.raises(InputError, match=r"mixup has mixed the clips .* use 2 replicas, which are 2 x method\.stages ranks"):
        check_streams(before, Streams(1, 8), mixed=True, drawn=False)


def test_rows_sums_and_scales_are_dealt_each_in_its_own_way() -> None:
    """By hand: two replicas of three rows become three of two."""

    def of(replica: int) -> dict[str, torch.Tensor]:
        rows = torch.arange(3.0).view(3, 1) + 3 * replica
        named = {
            "message/features/a/b/0": rows, "message/cotangent/a/b/0": 10 * rows, "waiting/a/input/1/0": rows,
            "waiting/a/cotangent/1/b/0": 10 * rows, "waiting/a/seed/1": torch.tensor(7), "piece/0/labels": rows.long(),
            "unit/a/count": torch.tensor(5), "unit/a/clips_before": torch.tensor(2),
            "unit/a/gradient/w": torch.tensor([4.0 * replica]),
        }  # fmt: skip
        return {f"under_way/{replica}/{name}": value for name, value in named.items()}

    state = {**of(0), **of(1)}
    there = streams_in({name: tensor.shape for name, tensor in state.items()})
    assert there == Streams(2, 3)
    for replica in range(3):
        own = torch.tensor([[2.0 * replica], [2.0 * replica + 1]])
        got = deal(state, "sideways", there, Streams(3, 2), replica)
        for name in ("message/features/a/b/0", "waiting/a/input/1/0", "piece/0/labels"):
            assert torch.equal(got[name].float(), own)
        # A mean over 3 rows was taken; one over 2 has weights 3 / 2 as large.
        for name in ("message/cotangent/a/b/0", "waiting/a/cotangent/1/b/0"):
            torch.testing.assert_close(got[name], 15 * own)
        assert got["unit/a/gradient/w"].tolist() == [2.0], "each begins with the mean of the sums"
        assert (int(got["unit/a/count"]), int(got["unit/a/clips_before"]), int(got["waiting/a/seed/1"])) == (5, 2, 7)
    inlets_first = {name: value.unsqueeze(0) if "message/cotangent" in name else value for name, value in state.items()}
    assert deal(inlets_first, "delayed", there, Streams(1, 6), 0)["message/cotangent/a/b/0"].shape == (1, 6, 1)


def test_units_that_draw_for_waiting_inputs_stay_where_they_are() -> None:
    check_streams(Streams(2, 3), Streams(2, 3), mixed=True, drawn=True)
    check_streams(None, Streams(3, 2), mixed=True, drawn=True)
    with pytest.raises(InputError, match="draw random numbers, so they stay together; use 2 replicas"):
        check_streams(Streams(2, 3), Streams(3, 2), mixed=False, drawn=True)


def test_files_tell_the_number_of_replicas() -> None:
    names = [f"extra-stage-{stage}-replica-{replica}{end}.safetensors"
             for stage in range(2) for replica in (0, 7, 11) for end in ("", "-1-of-2", "-2-of-2")]  # fmt: skip
    assert replicas_in_files(names) == 3 and replicas_in_files(["extra-stage-1.safetensors"]) == 0


@pytest.fixture
def stream_config(config_values: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """A config whose clips stream through three units."""

    def write(**recipe: Any) -> Path:
        small = {"convolutions": 3, "dense": 0, "pools": 2, "width": 8}
        values = {**config_values, "method": {"name": "sideways", "boundary": "stream"}}
        values["model"] = {"name": "unit_vgg", "frames": 9, "options": small}
        values["recipe"] = {**config_values["recipe"], "steps": 4, "warmup_epochs": 0.0, "dropout": 0.0, **recipe}
        values["checkpoint"] = {"every_steps": 2}
        del values["data"]["validation"]
        path = tmp_path / "stream.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def cut_to_step_2(run: Path) -> None:
    """Leave a run as a kill behind its first checkpoint would."""
    (run / "checkpoints" / "latest").write_text("step-2")
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    kept = next(number for number, line in enumerate(lines) if '"checkpoint"' in line)
    (run / "events.jsonl").write_text("".join(lines[: kept + 1]))


def test_a_run_on_two_ranks_goes_on_with_one_and_its_dry_run_says_that_four_would_do(
    stream_config: Callable[..., Path], tmp_path: Path
) -> None:
    path, run = stream_config(), tmp_path / "run"
    run_hpcvideo("train", path, "--run", run, ranks=2)
    before = [event["loss"] for event in read_events(run / "events.jsonl") if event["event"] == "step"]
    cut_to_step_2(run)
    run_hpcvideo("train", path, "--run", run, "--dry-run", "--ranks", "4")
    run_hpcvideo("train", path, "--run", run)
    events = list(read_events(run / "events.jsonl"))
    assert [event["world_size"] for event in events if event["event"] in ("start", "resume")] == [2, 1]
    assert [event["loss"] for event in events if event["event"] == "step"][-1] == pytest.approx(before[-1], rel=1e-4)


def test_a_run_with_a_fixed_micro_batch_is_refused_on_other_replicas_before_anything_is_started(
    stream_config: Callable[..., Path], tmp_path: Path
) -> None:
    path, run = stream_config(micro_batch=4), tmp_path / "run"
    run_hpcvideo("train", path, "--run", run, ranks=2)
    cut_to_step_2(run)
    logged = (run / "events.jsonl").read_bytes()
    for options in ((), ("--dry-run", "--ranks", "1")):
        refused = run_hpcvideo("train", path, "--run", run, *options, check=False)
        assert refused.returncode == 2, refused.stdout
        told = " ".join(refused.stderr.split())
        assert "step-2: the checkpoint has 8 streams under way (2 replicas with 4 clips at once)" in told
        assert "but here would be 4 (1 x 4)" in told
        assert "use 2 replicas, which are 2 x method.stages ranks, as before" in told
    assert (run / "events.jsonl").read_bytes() == logged, "no run was begun"
    run_hpcvideo("train", path, "--run", run, "--dry-run", "--ranks", "2")
