"""Triton kernels, one file per op under the op's name, installed as `fastimpute.kernels`.

Each file joins by name: `kernels/<op>.py` is imported when `fastimpute.ops.registry` lists "triton" among the op's
backends, and triton itself only then. The compiled cpu kernels live in `csrc/<op>/`.
"""
