"""From a method's options and a network to the fragments of its clips."""

from __future__ import annotations

from hpcvideo.errors import InputError
from hpcvideo.methods.options import ProgressiveOptions
from hpcvideo.methods.progressive.fragments import ClipCuts, cut_clip, cuts_by_epoch
from hpcvideo.methods.progressive.network import FragmentNetwork


def plan_cuts(options: ProgressiveOptions, network: FragmentNetwork, frames: int) -> ClipCuts:
    """The fragments of clips of `frames` frames. Raises InputError where the network cannot read fragments so long."""
    overlap = network.overlap if options.overlap is None else options.overlap
    lengths = options.lengths
    if min(lengths) <= overlap:
        raise InputError(
            f"method.fragment_frames = {min(lengths)} leaves no new frame beside an overlap of {overlap}; "
            f"use at least {overlap + 1}"
        )
    by_epoch = cuts_by_epoch(frames, lengths, overlap, options.last_fragment)
    multiple = network.frame_multiple
    for cuts in by_epoch:
        odd = [end - first for first, end in cuts[:-1] if (end - first) % multiple]
        if odd:
            raise InputError(
                f"method.fragment_frames: fragments with {odd[0]} new frames (overlap {overlap}), but this network takes "
                f"multiples of {multiple}"
            )
    each = options.update == "fragment"
    if options.evaluation == "whole":
        bins = options.evaluation_bins
        return ClipCuts(by_epoch, None, each, f"mean over {bins} spans" if bins > 1 else "")
    in_evaluation = cut_clip(frames, lengths[0], overlap, options.last_fragment)
    words = "last of" if options.evaluation == "last" else f"{options.evaluation} over"
    return ClipCuts(by_epoch, in_evaluation, each, f"{words} {len(in_evaluation)} fragments")
