"""The optimisers take the steps of torch.optim's, bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Parameter

from fastimpute.train.adam import Adam, AdamW

SHAPES = st.lists(st.lists(st.integers(1, 37), max_size=3).map(tuple), min_size=1, max_size=5)


def drawn(shapes: list[tuple[int, ...]], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def twins(shapes: list[tuple[int, ...]], seed: int) -> tuple[list[Parameter], list[Parameter]]:
    values = drawn(shapes, seed)
    return [Parameter(value.clone()) for value in values], [Parameter(value.clone()) for value in values]


def give(parameters: list[Parameter], gradients: list[torch.Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()


def same_bits(ours: list[torch.Tensor] | list[Parameter], theirs: list[torch.Tensor] | list[Parameter]) -> bool:
    return all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@settings(max_examples=20, deadline=None)
@given(shapes=SHAPES, steps=st.integers(1, 12), learning_rate=st.floats(1e-5, 1.0), seed=st.integers(0, 99))
def test_adam_has_the_bits_of_the_fused_one(
    shapes: list[tuple[int, ...]], steps: int, learning_rate: float, seed: int
) -> None:
    ours, theirs = twins(shapes, seed)
    adam, reference = Adam(ours, learning_rate), torch.optim.Adam(theirs, lr=learning_rate, fused=True)
    for step in range(steps):
        gradients = drawn(shapes, 100 + seed + step)
        give(ours, gradients)
        give(theirs, gradients)
        adam.step()
        reference.step()
    assert same_bits(ours, theirs)


@pytest.mark.parametrize("foreach", [False, True])
@settings(max_examples=20, deadline=None)
@given(shapes=SHAPES, rates=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12), decay=st.sampled_from([1e-4, 0.1]))
def test_adamw_has_the_bits_of_the_one_that_is_not_fused(
    foreach: bool, shapes: list[tuple[int, ...]], rates: list[float], decay: float
) -> None:
    ours, theirs = twins(shapes, 0)
    adam = AdamW(ours, 1.0, decay)
    reference = torch.optim.AdamW(theirs, weight_decay=decay, foreach=foreach)
    for step, rate in enumerate(rates):
        gradients = drawn(shapes, 100 + step)
        give(ours, gradients)
        give(theirs, gradients)
        adam.learning_rate = reference.param_groups[0]["lr"] = rate
        adam.step()
        reference.step()
    assert same_bits(ours, theirs)
    states = [reference.state[parameter] for parameter in theirs]
    assert same_bits(adam.mean, [state["exp_avg"] for state in states])
    assert same_bits(adam.square, [state["exp_avg_sq"] for state in states])


@pytest.mark.parametrize("optimiser", [lambda weight: Adam([weight], 0.1), lambda weight: AdamW([weight], 0.1, 0.0)])
def test_a_step_wants_gradients(optimiser: type[Adam]) -> None:
    with pytest.raises(ValueError, match="parameters: expected a gradient in each of them before a step"):
        optimiser(Parameter(torch.ones(2))).step()  # type: ignore[call-arg, arg-type]
