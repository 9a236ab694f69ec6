"""Packed weights are reused while they show the same tensors, and only then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastimpute.ops.pack_cache import PackCache


class Pack:
    """A copy of a weight's values, which can be compared with what stands at an address."""

    def __init__(self, weight: Tensor) -> None:
        self.values = weight.detach().clone()
        self.weight = weight

    def holds(self, addresses: tuple[int, ...]) -> bool:
        assert addresses == (self.weight.data_ptr(),)
        return torch.equal(self.values, self.weight)


def packer(weight: Tensor) -> Callable[[], Pack]:
    return lambda: Pack(weight)


def test_the_same_weights_are_packed_once() -> None:
    cache, weight = PackCache(most=4, compared=1), torch.ones(3)
    first = cache.get(("fp32",), [weight, None], packer(weight))
    assert cache.get(("fp32",), [weight, None], packer(weight)) is first


def test_other_settings_are_another_pack() -> None:
    cache, weight = PackCache(most=4, compared=1), torch.ones(3)
    first = cache.get(("fp32",), [weight], packer(weight))
    assert cache.get(("bf16",), [weight], packer(weight)) is not first
    assert cache.get(("fp32",), [weight], packer(weight)) is first


def test_a_weight_written_to_is_packed_anew() -> None:
    cache, weight = PackCache(most=4, compared=1), torch.ones(3)
    cache.get((), [weight], packer(weight))
    weight.mul_(2)
    assert torch.equal(cache.get((), [weight], packer(weight)).values, weight)


def test_a_trained_weight_written_to_without_counting_is_packed_anew() -> None:
    cache, weight = PackCache(most=4, compared=1), torch.ones(3, requires_grad=True)
    first = cache.get((), [weight], packer(weight))
    assert cache.get((), [weight], packer(weight)) is first
    weight.detach().numpy()[:] = 5
    assert torch.equal(cache.get((), [weight], packer(weight)).values, torch.full((3,), 5.0))


def test_a_new_tensor_at_an_old_ones_place_is_packed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, old, new = PackCache(most=4, compared=1), torch.ones(3), torch.zeros(3)
    monkeypatch.setattr("fastimpute.ops.pack_cache.id", lambda _: 1, raising=False)
    cache.get((), [old], packer(old))
    assert torch.equal(cache.get((), [new], packer(new)).values, new)


def test_weights_of_inference_mode_are_packed_every_time() -> None:
    cache = PackCache(most=4, compared=1)
    with torch.inference_mode():
        weight = torch.ones(3)
    first = cache.get((), [weight], packer(weight))
    assert cache.get((), [weight], packer(weight)) is not first


def test_the_pack_used_longest_ago_goes_first() -> None:
    cache, weights = PackCache(most=2, compared=1), [torch.ones(1) * number for number in range(3)]
    first, second = (cache.get((), [weight], packer(weight)) for weight in weights[:2])
    assert cache.get((), [weights[0]], packer(weights[0])) is first
    cache.get((), [weights[2]], packer(weights[2]))
    assert cache.get((), [weights[0]], packer(weights[0])) is first
    assert cache.get((), [weights[1]], packer(weights[1])) is not second
