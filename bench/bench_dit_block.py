"""dit_block: share of the measured peak, and ratios to eager PyTorch with its fused attention and to torch.compile."""

import pytest
from conftest import Recorder

from fastimpute.benchmark.block_cases import block_case


@pytest.mark.parametrize("hidden", [64, 96, 128, 256])
@pytest.mark.parametrize("tokens", [48, 96])
def test_faster_than_eager(record: Recorder, tokens: int, hidden: int) -> None:
    rows = record(block_case(tokens, hidden, compile_baseline=True))
    eager = rows["eager SDPA fp32"]
    assert eager.kernel_is_faster_by >= 1.5
    if "fastimpute bf16" in rows:
        assert eager.milliseconds / rows["fastimpute bf16"].milliseconds >= 2.8


@pytest.mark.parametrize("hidden", [64, 256])
def test_few_missing_frames_and_their_memory(record: Recorder, hidden: int) -> None:
    rows = record(block_case(16, hidden, memory=96, compile_baseline=False))
    assert rows["eager SDPA fp32"].kernel_is_faster_by >= 1.5
