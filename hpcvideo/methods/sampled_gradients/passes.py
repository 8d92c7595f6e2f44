"""The two passes of sampled gradients over an encoder, for any network in two parts and any loss, also outside of a method.

    features = encode_in_chunks(encode, read, rows, chunk)        # 1. all snippets, nothing kept for backward
    features.requires_grad_()
    loss(decide(features)).backward()                             # 2. the second part alone, on ready features
    backward_in_chunks(encode, read, chosen, features.grad[chosen], chunk)   # 3. the encoder again, of some snippets

After step 3 the encoder's gradient is that of plain back-propagation in which the features of snippets that were not chosen
are constants: exactly, not on average. With all of them chosen it is the plain gradient. Activations of `chunk` snippets
are all that is in memory at a time. The loss may be anything: of one video, or a contrast between the embeddings of many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Encode = Callable[[Tensor], Tensor]
"""Snippets [n, ...] to features [n, channels], each for itself."""
Read = Callable[[Tensor], Tensor]
"""Rows int64 [n] to those snippets as the encoder takes them."""
Backward = Callable[[Tensor, bool], None]
"""Back-propagates a scalar; told whether it is the last one."""


def plain_backward(scalar: Tensor, last: bool) -> None:
    """torch's own."""
    scalar.backward()


def encode_in_chunks(encode: Encode, read: Read, rows: Tensor, chunk: int, keys: Tensor | None = None) -> Tensor:
    """Features [rows, channels] of all rows, without gradient, `chunk` snippets at a time.

    keys: int64 [rows] where the encoder draws random numbers (dropout): each snippet then goes alone, torch's generator
    seeded by its key, so that its draws are the same whenever and with whomever it is encoded.
    """
    found: Tensor | None = None
    done = 0
    with torch.no_grad():
        for part, part_keys in _parts(rows, keys, chunk):
            features = _encode(encode, read(part), part_keys)
            if found is None:
                # One piece of memory for all: small pieces kept between large ones that go would scatter the heap.
                found = features.new_empty(len(rows), features.shape[1])
            found[done : done + len(part)] = features
            done += len(part)
    if found is None:
        raise ValueError("no rows: there is nothing to encode")
    return found


def backward_in_chunks(
    encode: Encode, read: Read, rows: Tensor, gradients: Tensor, chunk: int, keys: Tensor | None = None,
    backward: Backward = plain_backward,
) -> None:  # fmt: skip
    """Encode the rows again, `chunk` at a time, and give the encoder's parameters the gradient that `gradients` [rows,
    channels], the loss's with respect to these features, cause: one backward a chunk, of the scalar sum(features *
    gradients), whose gradient is the same and which an engine can scale. keys: as in `encode_in_chunks`."""
    done = 0
    for part, part_keys in _parts(rows, keys, 1 if keys is not None else chunk):
        features = _encode(encode, read(part), part_keys)
        wanted = gradients[done : done + len(part)].detach()
        done += len(part)
        backward((features * wanted).sum(), done == len(rows))


def encode_checkpointed(encode: Encode, read: Read, rows: Tensor, chunk: int, keys: Tensor | None = None) -> Tensor:
    """Features [rows, channels] with their gradient, whose activations backward computes again chunk by chunk: what sampled
    gradients with all snippets are compared with."""
    pieces = [
        checkpoint(lambda part, part_keys: _encode(encode, read(part), part_keys), *pair, use_reentrant=False)
        for pair in _parts(rows, keys, chunk)
    ]
    return torch.cat(pieces)


def _parts(rows: Tensor, keys: Tensor | None, chunk: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    for begin in range(0, len(rows), chunk):
        yield rows[begin : begin + chunk], None if keys is None else keys[begin : begin + chunk]


def _encode(encode: Encode, snippets: Tensor, keys: Tensor | None) -> Tensor:
    if keys is None:
        return encode(snippets)
    features = []
    for place, key in enumerate(keys.tolist()):
        torch.manual_seed(key)
        features.append(encode(snippets[place : place + 1]))
    return torch.cat(features)
