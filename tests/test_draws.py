"""Draws of missing cells over a base, and their moments without keeping any."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fastimpute.bases import GaussianBase
from fastimpute.crew import Crew
from fastimpute.denoising import Denoising
from fastimpute.diffusion.schedule import plan
from fastimpute.draws import Draws, Moments, most_central
from fastimpute.nn import DiT
from fastimpute.nn.white_denoiser import FEATURES
from fastimpute.series import Series
from fastimpute.settings import Cycles, Patches, patch_table

pytestmark = pytest.mark.usefixtures("one_thread")


class Inline:
    """Work in the thread that asks for it."""

    def map(self, task: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        return map(task, items)


def walk(rows: int, gone: np.ndarray, samples: int, evaluations: int) -> Draws:
    """Draws of a random walk by an untrained network over a Gaussian base of 12 rows."""
    truth = np.cumsum(np.random.default_rng(0).normal(size=(rows, 1)), 0)
    truth -= np.linspace(0, truth[-1, 0], rows)[:, None]
    series = Series.read(np.where(gone, np.nan, truth))
    table = patch_table(Patches(12, 2, np.zeros((1, 1), np.int64)), series, Cycles())
    base = GaussianBase.fit(series, series.missing, table)
    net = DiT(1, 12, hidden=32, feature_dim=FEATURES)
    model = Denoising(base, net, Crew(1, Inline()))  # type: ignore[arg-type]
    return Draws(model, series, gone, gone, table, samples, plan(evaluations), 0)


@pytest.fixture(scope="module")
def draws() -> Draws:
    """Of a third of 90 cells, by a network that has something to say."""
    torch.manual_seed(0)
    found = walk(90, np.random.default_rng(1).random((90, 1)) < 0.3, 20, 4)
    torch.nn.init.normal_(found.model.net.write.weight, std=0.2)
    return found


def test_an_untrained_network_draws_the_joint_conditional_of_the_base() -> None:
    gone = np.zeros((400, 1), bool)
    gone[203:207] = True
    joint = walk(400, gone, 3000, 16)
    drawn = joint.departures()[:, 203:207, 0]
    patch = int(most_central(joint.table.starts, 12, 400)[204])
    at = np.arange(203, 207) - int(joint.table.starts[patch])
    assert isinstance(joint.model.base, GaussianBase)
    covariance = joint.model.base.moments.covariance
    conditional = torch.linalg.inv(torch.linalg.inv(covariance)[at][:, at]).numpy()
    np.testing.assert_allclose(np.cov(drawn[:, :2].T), conditional[:2, :2], rtol=0.12)


def test_every_row_belongs_to_a_window_that_holds_it() -> None:
    starts = np.array([0, 5, 9, 10])
    owner = starts[most_central(starts, 8, 18)]
    rows = np.arange(18)
    assert ((owner <= rows) & (rows < owner + 8)).all()


def test_only_cells_that_are_asked_for_are_drawn(draws: Draws) -> None:
    asked = draws.asked & (np.arange(90) < 40)[:, None]
    drawn, all_drawn = replace(draws, asked=asked).departures(), draws.departures()
    assert (drawn[:, ~asked] == 0).all()
    np.testing.assert_allclose(drawn[:, asked], all_drawn[:, asked], rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(samples=st.integers(2, 12), rows=st.integers(1, 200))
def test_moments_are_those_of_all_draws_however_they_are_cut(draws: Draws, samples: int, rows: int) -> None:
    drawn = replace(draws, samples=samples).departures().astype(np.float64)
    moments = replace(draws, samples=samples, rows=rows).moments()
    np.testing.assert_allclose(moments.mean, drawn.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moments.deviation, drawn.std(0, ddof=1), rtol=1e-4, atol=1e-6)


def test_a_moved_and_narrow_cloud_keeps_its_deviation() -> None:
    drawn = 1e3 + np.random.default_rng(0).normal(size=(50, 4, 3))
    moments = Moments(drawn.mean(0), np.square(drawn).mean(0), 50)
    np.testing.assert_allclose(moments.deviation, drawn.std(0, ddof=1), rtol=1e-8)


def test_widened_draws_have_widened_moments() -> None:
    drawn, factor = np.random.default_rng(0).normal(size=(9, 4, 3)), np.arange(12.0).reshape(4, 3)
    widened = Moments(drawn.mean(0), np.square(drawn).mean(0), 9).widened(factor)
    np.testing.assert_allclose(widened.mean, (factor * drawn).mean(0))
    np.testing.assert_allclose(widened.deviation, (factor * drawn).std(0, ddof=1))


class LiveMemory(TorchDispatchMode):
    """Bytes of the tensors that live at a time, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(part, torch.Tensor):
                self._count(part.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        where, size = storage._cdata, storage.nbytes()
        if where in self.known:
            return
        self.known.add(where)
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self._forget, where, size)

    def _forget(self, where: int, size: int) -> None:
        self.known.discard(where)
        self.live -= size


def memory(draws: Draws, samples: int) -> int:
    with LiveMemory() as memory:
        replace(draws, samples=samples, rows=100).moments()
    return memory.most


def test_moments_take_no_more_memory_for_more_draws(draws: Draws) -> None:
    assert memory(draws, 200) <= 1.02 * memory(draws, 20)
