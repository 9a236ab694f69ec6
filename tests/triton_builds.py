"""Triton kernels in processes of their own, and compiled ahead of time with what the compilers say of the result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

CAPABILITIES = (80, 90, 100)
INTEGERS = frozenset({
    "bias_head_stride", "bias_key_stride", "bias_query_stride", "bias_rows", "bias_stride", "capacity", "carried_row",
    "cells", "channels", "count", "denoised_vectors", "first", "first_patch", "first_place", "first_row",
    "first_window", "group_vectors", "halvings", "inner_iterations", "inner_stride", "iterations", "last_place",
    "last_row", "last_window", "mean_stride", "memory_rows", "memory_tokens", "missing_stride", "missing_vectors",
    "modulation_rows", "most", "outer_stride", "patches", "previous_vectors", "rank", "row_vectors", "rows", "run",
    "sample", "sample_vectors", "samples", "seed", "sequences", "series_stride", "settled_row", "slots", "step",
    "target_stride", "tiles", "tokens", "v_stride", "v_vectors", "vector_stride", "vectors", "window_vectors",
    "windows", "x_stride",
})  # fmt: skip
# Where kernels can run here.
PLACES = ("interpreter", "gpu") if torch.cuda.is_available() else ("interpreter",)
# Shared memory a block may use, in bytes.
SHARED_MOST = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


class Build(NamedTuple):
    """One kernel for one GPU: its arguments, Triton's own form, the assembly, and what a block needs."""

    arguments: tuple[str, ...]
    ttir: str
    ptx: str
    shared: int
    registers: int
    stack: int

    def narrow_offsets(self, *bounded: str) -> list[str]:
        """Offsets of less than 64 bits from an argument itself.

        bounded: arguments that are small whatever the number of rows. Beyond a 64-bit offset, which leads to a row or
        to a program's scratch, 32 bits reach everything.
        """
        assert "tt.addptr" in self.ttir
        origin: dict[str, str] = {}  # names are given anew in each region: the last one counts
        narrow = []
        for line in self.ttir.splitlines():
            found = re.search(r"(%\S+) = tt\.(\w+) (%[\w.]+).*?(i32|i64)?>?(?: loc\(.*\))?$", line)
            if found is None:
                continue
            result, operation, source, width = found.groups()
            source = origin.get(source, source.removeprefix("%"))
            if operation == "addptr" and width == "i32" and source in set(self.arguments) - set(bounded):
                narrow.append(line)
            origin[result] = "reached" if operation == "addptr" and width == "i64" else source
        return narrow

    def tensor_core_instructions(self) -> set[str]:
        return {name for name in ("mma.sync", "wgmma.mma_async", "tcgen05.mma") if name in self.ptx}


def run_kernel_tests(op: str, place: str) -> None:
    """Runs `tests/triton_kernels/<op>.py`, in a process of its own: Triton settles at import who runs its kernels."""
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"triton_kernels/{op}.py"],
        cwd=Path(__file__).parent,
        env={**os.environ, "TRITON_INTERPRET": "1" if place == "interpreter" else "0", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]


def build(
    kernel: Any, capability: int, pointers: dict[str, str], constants: dict[str, Any], *, warps: int, stages: int = 3
) -> Build:
    """Compiles `kernel`.

    Args:
        kernel: a `triton.jit` function.
        capability: 10 major + minor.
        pointers: element type by argument name; all 16 bytes aligned, as torch allocates.
        constants: the compile-time constants, absent pointers (None) included. Other arguments are int64 where their
            name is among INTEGERS, float32 otherwise.
    """
    signature, attributes = {}, {}
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in pointers:
            signature[name] = f"*{pointers[name]}"
            attributes[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i64" if name in INTEGERS else "fp32"
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True},
    )
    usage = _resource_usage(compiled.asm["cubin"])
    return Build(
        tuple(kernel.arg_names),
        str(compiled.asm["ttir"]),
        str(compiled.asm["ptx"]),
        compiled.metadata.shared,
        usage["REG"],
        usage["STACK"],
    )


def _resource_usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", shown)}
