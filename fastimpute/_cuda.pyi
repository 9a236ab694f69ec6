"""CUDA kernels: addresses are the current device's (0: absent), strides in elements, `stream` is a cudaStream_t.

Calls return when the work is queued; the callers keep the memory alive until it is done.
"""

_Moments = tuple[int, int, int, int, float, float, float, float, float]
_Noise = tuple[int, int, int, int, int, int]

def why_unusable() -> str | None: ...
def spt_weights(
    stream: int,
    rows: int,
    group: int,
    log_w: int,
    log_p: int,
    score_sq: int,
    log_ref: int,
    log_w_new: int,
    mass: int,
    gamma: float,
    eta_w: float,
    tau: float,
    bound: float,
    robust: bool,
) -> None: ...
def particle_step(
    stream: int,
    rows: int,
    dim: int,
    x: int,
    x_stride: int,
    direction: int,
    direction_stride: int,
    mass: int,
    missing: int,
    missing_stride: int,
    x_new: int,
    x_new_stride: int,
    eta: float,
    drift: float,
    moments: _Moments,
    noise: _Noise,
) -> None: ...
