"""The claims on one process's training step: the networks beside each other, and ours beside the plain implementation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contestant import run_once
from report import Claim
from rounds import Rounds, take_turns
from step_profile import profile_step
from training_steps import Net, OurStep, PeerStep, Rank, Workload, clips_per_second

_TSM, _TSN = "tsm_resnet50", "tsn_resnet50"
_I3D = {"tsm_over_i3d_3x1x1": ("i3d_resnet50", ">= 1.1"), "tsm_over_i3d_3x3x3": ("i3d_resnet50_3x3x3", ">= 1.6")}
_STRIDED = ((16, 2), (32, 8))
_MEMORY_SCRIPT = Path(__file__).parent / "step_contestants" / "memory.py"
_MEMORY_COMMAND = ("env", "DS_ACCELERATOR=cpu", "DS_LOG_LEVEL=warning", sys.executable, _MEMORY_SCRIPT)
_REMEMBERED = {"ours bf16": (_TSM, "bf16"), "ours fp32": (_TSM, "fp32"), "plain fp32": ("plain", "fp32")}
_COUNTED = "multiply-adds of one forward, convolutions and matrix products, by torch's FlopCounterMode on the meta device"
_STEP = "a step is uint8 clips to floats, forward, cross-entropy, backward, clipping at 20, SGD with momentum, dropout 0.5"


@dataclass(frozen=True)
class Bench:
    """What the claims share. work: what networks see; small: what bf16 sees where the processor has no arithmetic for it;
    remembered: what memory is measured with. width: of the networks' stems."""

    work: Workload
    small: Workload
    remembered: Workload
    rounds: int
    cores: int
    rank: Rank
    tell: Callable[[str], None]
    width: int = 64

    @staticmethod
    def of(quick: bool, cores: Sequence[int], rank: Rank, tell: Callable[[str], None]) -> Bench:
        """One clip of 8 x 224 px; with quick 64 px and 3 rounds."""
        work = Workload(1, 8, 64 if quick else 224)
        remembered = Workload(1, 8, 64 if quick else 112)
        return Bench(work, Workload(1, 8, 64), remembered, 3 if quick else 9, len(cores), rank, tell)

    def ours(
        self, name: str, channels_last: bool, work: Workload | None = None, precision: str = "fp32", **options: Any
    ) -> OurStep:
        """Our step of a network in the given memory format."""
        net = Net(name, {"channels_last": channels_last, "width": self.width, **options})
        return OurStep(net, work or self.work, self.rank, precision)

    def faster(self, name: str) -> OurStep:
        """Our step of a network in the memory format in which one step of two is faster, so that TSM's opponents do not
        suffer from a format that does not suit them."""
        steps = {layout: self.ours(name, layout) for layout in (False, True)}
        rates = {layout: clips_per_second(step, self.work) for layout, step in steps.items()}
        best = {layout: max(rate() for _ in range(2)) for layout, rate in rates.items()}
        chosen = max(best, key=lambda layout: best[layout])
        self.tell(f"{name} is faster {'channels-last' if chosen else 'contiguous'}: {best[chosen]:.3g} clips/s")
        return steps[chosen]

    def turns(self, steps: dict[str, Callable[[], float]], work: Workload, rounds: int) -> Rounds:
        """The contestants' rates, round by round."""
        rates = {name: clips_per_second(step, work) for name, step in steps.items()}
        return take_turns(rates, rounds, self.cores, self.tell)

    def gigamacs(self, name: str, work: Workload | None = None, **options: Any) -> float:
        """See Net.gigamacs."""
        return float(f"{Net(name, {'width': self.width, **options}).gigamacs(work or self.work):.4g}")

    def memory(self) -> dict[str, Any]:
        """What one step of ours in bf16 and fp32 and of the plain one takes, in MB, each in a process of its own."""
        work = self.remembered
        shape = {"clips": work.clips, "frames": work.frames, "size": work.size, "width": self.width}
        found: dict[str, Any] = {"work": str(work)}
        for label, (model, precision) in _REMEMBERED.items():
            found[label] = run_once(_MEMORY_COMMAND, {**shape, "model": model, "precision": precision})
            self.tell(f"memory of {label}: {found[label]}")
        return found


def inflated_claims(bench: Bench) -> list[Claim]:
    """tsm_over_i3d_3x1x1 and tsm_over_i3d_3x3x3, and the rates of the strided forms for information."""
    steps: dict[str, Callable[[], float]] = {_TSM: bench.ours(_TSM, True)}
    steps |= {name: bench.faster(name) for name, _ in _I3D.values()}
    rounds = bench.turns(steps, bench.work, max(3, bench.rounds - 2))
    gigamacs = {name: bench.gigamacs(name) for name in steps}
    strided = _strided_forms(bench)
    claims = []
    for claim, (name, bound) in _I3D.items():
        how = (
            f"clips/s of TSM-R50 over {name}, all blocks inflated, both with {bench.work.frames} frames and no temporal "
            f"stride, {bench.work}, fp32, I3D in its faster memory format: {_STEP}. The "
            "papers' own inputs are not known to us"
        )
        details = {**rounds.facts(), "gigamacs_a_clip": gigamacs, "gigamacs_counted": _COUNTED}
        details["strided_for_information"] = strided
        claims.append(Claim(claim, rounds.ratio(_TSM, name), "x", bound, name, how, details))
    return claims


def _strided_forms(bench: Bench) -> dict[str, dict[str, float]]:
    """I3D with more frames and a temporal stride, clips/s of the faster of two steps: 16 frames pooled to 8 behind layer1,
    32 with a stride of 2 in the stem, its pooling and behind layer1."""
    found = {}
    for frames, stride in _STRIDED:
        for name, _ in _I3D.values():
            work = Workload(bench.work.clips, frames, bench.work.size)
            rate = clips_per_second(bench.ours(name, False, work, temporal_stride=stride), work)
            gigamacs = bench.gigamacs(name, work, temporal_stride=stride)
            label = f"{name}, {frames} frames, temporal_stride {stride}"
            found[label] = {"clips_a_second": round(max(rate(), rate()), 3), "gigamacs_a_clip": gigamacs}
            bench.tell(f"{label}: {found[label]}")
    return found


def tsn_claim(bench: Bench) -> Claim:
    """tsm_over_tsn: what the shift costs."""
    steps: dict[str, Callable[[], float]] = {_TSM: bench.ours(_TSM, True), _TSN: bench.faster(_TSN)}
    rounds = bench.turns(steps, bench.work, bench.rounds)
    how = (
        f"clips/s of TSM-R50 over TSN-R50, median of {bench.rounds} interleaved pairs, {bench.work}, fp32, TSN in its "
        f"faster memory format: {_STEP}"
    )
    gigamacs = {name: bench.gigamacs(name) for name in steps}
    details = {**rounds.facts(), "gigamacs_a_clip": gigamacs, "gigamacs_counted": _COUNTED}
    return Claim("tsm_over_tsn", rounds.ratio(_TSM, _TSN), "x", ">= 0.93", _TSN, how, details)


def plain_claim(bench: Bench) -> Claim:
    """over_plain_fp32, with both profiles."""
    ours, plain = bench.ours(_TSM, True), PeerStep(bench.work, bench.width)
    rounds = bench.turns({"ours": ours, "plain": plain}, bench.work, bench.rounds)
    profiles = {"ours": profile_step(ours), "plain": profile_step(plain)}
    how = (
        "clips/s of our TSM-R50 through method end_to_end, channels-last, over a straightforward TSM-R50 (pad and "
        f"concatenate, contiguous, bare loop with torch.optim.SGD), {bench.work}, fp32: {_STEP}"
    )
    details = {**rounds.facts(), "profile": profiles, "left": _what_is_left(profiles)}
    return Claim("over_plain_fp32", rounds.ratio("ours", "plain"), "x", ">= 1.0", "plain implementation", how, details)


def _what_is_left(profiles: dict[str, dict[str, Any]]) -> str:
    kinds = profiles["ours"]["share"]
    rest = ", ".join(f"{kind} {share:.0%}" for kind, share in kinds.items() if kind != "convolution")
    return f"convolutions are {kinds.get('convolution', 0):.0%} of our step; all else that could be saved: {rest}"


def bf16_claim(bench: Bench) -> Claim:
    """over_plain_bf16, with the memory of both."""
    arithmetic = machine_arithmetic()
    work = bench.work if arithmetic["bf16"] else bench.small
    how = f"clips/s of our TSM-R50 with precision bf16 over the plain implementation in fp32, {work}: {_STEP}"
    if not arithmetic["bf16"]:
        how += (
            f"; this processor computes no bf16 (torch's capability here is {arithmetic['capability']}, bf16 needs "
            "AVX512-BF16 or AMX), so that torch takes a slow reference for bf16 convolutions; hence the small pictures"
        )
    steps: dict[str, Callable[[], float]] = {
        "ours bf16": bench.ours(_TSM, True, work, "bf16"),
        "plain fp32": PeerStep(work, bench.width),
    }
    rounds = bench.turns(steps, work, bench.rounds if arithmetic["bf16"] else min(3, bench.rounds))
    value = rounds.ratio("ours bf16", "plain fp32")
    details = {**rounds.facts(), "bf16_arithmetic": arithmetic, "memory": bench.memory()}
    return Claim("over_plain_bf16", value, "x", ">= 1.5", "plain implementation, fp32", how, details)


def machine_arithmetic() -> dict[str, Any]:
    """What this processor computes with, as far as torch uses it: bf16 says whether it has products of bf16."""
    avx512, amx = torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported()
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": bool(avx512),
        "amx": bool(amx),
        "bf16": bool(avx512 or amx),
    }
