"""CUDA kernels: addresses are the current device's (0: absent), strides in elements, `stream` is a cudaStream_t.

Calls return when the work is queued; the callers keep the memory alive until it is done.
"""

_Sizes = tuple[int, int, int]
_Rows = tuple[int, int]
_Moments = tuple[int, int, int, int, float, float, float, float, float]
_Noise = tuple[int, int, int, int, int, int]
_Series = tuple[int, int, int, int, int, int, int, int]
_Patches = tuple[int, int, int, int, int, int]
_Condition = tuple[int, int, int, float]
_Spt = tuple[int, int, float, float, float, float, bool, int]
_Adam = tuple[float, float, float] | None
_Dissipation = tuple[int, int] | None

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
def mlp_pack_bytes(head: str, dim: int) -> int:
    """Bytes of a packed network."""

def mlp_refusal(head: str, hidden: int, dim: int) -> str | None:
    """Why the kernels cannot take such a network on the current device; None when they can."""

def pack_mlp(head: str, hidden: int, dim: int, w1: int, b1: int, w2: int, b2: int, w3: int, b3: int, out: int) -> None:
    """Packs on the host, main memory to main memory: copy `out` to the device."""

def energy_scratch_bytes(want_hvp: bool) -> int:
    """Bytes one call of `energy_mlp` needs on the current device, whatever its rows."""

def energy_body(dim: int, gaussian: bool, want_hvp: bool) -> str:
    """The instructions that serve such calls of `energy_mlp` on the current device, "wgmma" or "mma.sync".

    Where both could, they solve a small problem on first use; mma.sync serves unless they agree.
    """

def permit_wgmma(permitted: bool) -> None:
    """Without permission mma.sync serves all calls of this process: to compare the two."""

def energy_mlp(
    stream: int,
    dim: int,
    pack: int,
    precision_matrix: int,
    mean: int,
    scratch: int,
    scratch_bytes: int,
    rows: int,
    x: int,
    x_stride: int,
    modulation: int,
    modulation_rows: int,
    modulation_index: int,
    vector: int,
    vector_stride: int,
    want_hvp: bool,
    log_p: int,
    score: int,
    score_stride: int,
    hvp: int,
    hvp_stride: int,
) -> None:
    """bfloat16 operands, float32 sums, width 256, Gaussian part in float32; the modulation's indices are unchecked."""

def score_mlp(
    stream: int,
    dim: int,
    pack: int,
    precision_matrix: int,
    mean: int,
    rows: int,
    x: int,
    x_stride: int,
    sigma: int,
    modulation: int,
    modulation_rows: int,
    modulation_index: int,
    score: int,
    score_stride: int,
) -> None:
    """As `energy_mlp`, for the direct head."""

def group_refusal(group: int) -> str | None:
    """Why patches cannot share weights in such groups; None when they can."""

def recursion_scratch_bytes(
    head: str,
    series: _Series,
    patches: _Patches,
    condition: _Condition,
    iterations: int,
    eta: float,
    spt: _Spt,
    adam: _Adam,
    dissipation: _Dissipation,
) -> int:
    """Bytes of scratch a call of `proximal_recursion` needs on the current device."""

def proximal_recursion(
    stream: int,
    pack: int,
    precision_matrix: int,
    mean: int,
    scratch: int,
    scratch_bytes: int,
    cover: int,
    head: str,
    series: _Series,
    patches: _Patches,
    condition: _Condition,
    iterations: int,
    eta: float,
    spt: _Spt,
    adam: _Adam,
    dissipation: _Dissipation,
) -> None:
    """Tuples as `_core.proximal_recursion` takes them; `cover`: most patches that share a cell, or more."""

def unrolled_attention_refusal(frames: int, channels: int) -> str | None:
    """Why the kernel cannot take such sequences on the current device; None when it can."""

def unrolled_attention(
    stream: int,
    shape: tuple[int, int, int],
    data: tuple[int, int, int, int, int, int],
    process: tuple[int, int, int, int, int, int],
    rates: tuple[int, int, int, int, int, int],
    links: tuple[int, int],
    score: int,
    conditional_mean: int,
) -> None:
    """As of `_core`, in float32; links: decay and weight of the preconditioner by gap, 0: none."""

def diffusion_step(
    stream: int,
    sizes: _Sizes,
    v: _Rows,
    denoised: _Rows,
    previous: _Rows,
    missing: _Rows,
    v_new: _Rows,
    coefficients: tuple[float, float, float, float],
    noise: _Noise,
) -> None:
    """Tuples as `_core.diffusion_step` takes them."""

def samples_refusal(samples: int) -> str | None:
    """Why windows cannot have so many samples in `ball_quantile`; None when they can."""

def ball_quantile(stream: int, sizes: _Sizes, x: _Sizes, missing: _Rows, rank: int, centre: _Rows, radius: int) -> None:
    """Tuples as `_core.ball_quantile` takes them."""

def gaussian_conditional_scratch(rows: int, dim: int, covariance: bool, precision: bool) -> int:
    """Bytes one call of `gaussian_conditional` needs on the current device, by which matrices are given."""

def gaussian_conditional(
    stream: int,
    status: int,
    scratch: int,
    scratch_bytes: int,
    rows: int,
    dim: int,
    x: int,
    x_stride: int,
    missing: int,
    missing_stride: int,
    mean: int,
    covariance: int,
    precision: int,
    filled: int,
    filled_stride: int,
    deviation: int,
    deviation_stride: int,
) -> None:
    """status: (rows) int32, negative; receives the cell whose pivot is not positive, of the covariance plus dim."""

def gaussian_conditional_f64(
    stream: int,
    status: int,
    scratch: int,
    scratch_bytes: int,
    rows: int,
    dim: int,
    x: int,
    x_stride: int,
    missing: int,
    missing_stride: int,
    mean: int,
    covariance: int,
    precision: int,
    filled: int,
    filled_stride: int,
    deviation: int,
    deviation_stride: int,
) -> None:
    """For x in double."""

def gaussian_whitening_scratch(rows: int, dim: int, most: int) -> int:
    """Bytes one call of `gaussian_whitening` needs on the current device."""

def gaussian_whitening(
    stream: int,
    status: int,
    scratch: int,
    scratch_bytes: int,
    sizes: tuple[int, int, int],
    x: tuple[int, int],
    missing: tuple[int, int],
    mean: tuple[int, int],
    precision: int,
    outputs: tuple[int, int, int, int, int, int],
) -> None:
    """status: (rows) int32, negative; receives the cell whose pivot is not positive, or dim if `most` is too small."""

def gaussian_whitening_f64(
    stream: int,
    status: int,
    scratch: int,
    scratch_bytes: int,
    sizes: tuple[int, int, int],
    x: tuple[int, int],
    missing: tuple[int, int],
    mean: tuple[int, int],
    precision: int,
    outputs: tuple[int, int, int, int, int, int],
) -> None:
    """For x in double."""
