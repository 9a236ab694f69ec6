"""Compiled kernels: tensors come as addresses (0: absent), strides in elements; the callers keep the memory alive."""

_Weights = tuple[int, int, int, int, int, int, int, int, int, int]
_Moments = tuple[int, int, int, int, float, float, float, float, float]
_Rows = tuple[int, int]
_Noise = tuple[int, int, int, int, int, int]
_Gradients = tuple[int, int, int, int, int, int, int, int]
_Product = tuple[int, int, int, int, int, int, int, int]
_Series = tuple[int, int, int, int, int, int, int, int]
_Patches = tuple[int, int, int, int, int, int]
_Condition = tuple[int, int, int, float]
_Spt = tuple[int, int, float, float, float, float, bool, int]
_Six = tuple[int, int, int, int, int, int]

_BlockWeights = tuple[int, int, int, int, int, int, int, int]

class MlpPack:
    def __init__(
        self,
        isa: str,
        precision: str,
        head: str,
        hidden: int,
        dim: int,
        w1: int,
        b1: int,
        w2: int,
        b2: int,
        w3: int,
        b3: int,
        precision_matrix: int,
        mean: int,
    ) -> None: ...
    def holds(self, addresses: tuple[int, int, int, int, int, int]) -> bool: ...
    @property
    def isa(self) -> str: ...
    @property
    def hidden(self) -> int: ...
    @property
    def dim(self) -> int: ...

class DitPack:
    def __init__(self, isa: str, precision: str, sizes: tuple[int, int, int], weights: _BlockWeights) -> None: ...
    def holds(self, addresses: _BlockWeights) -> bool: ...

def cpu_features() -> dict[str, bool]: ...
def isas() -> list[str]: ...
def spin_peak(isa: str, precision: str, steps: int) -> int: ...
def energy_mlp(
    pack: MlpPack,
    threads: int,
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
) -> None: ...
def energy_mlp_ref_f64(
    weights: _Weights,
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
) -> None: ...
def score_mlp(
    pack: MlpPack,
    threads: int,
    rows: int,
    x: int,
    x_stride: int,
    sigma: int,
    modulation: int,
    modulation_rows: int,
    modulation_index: int,
    score: int,
    score_stride: int,
) -> None: ...
def score_mlp_ref_f64(
    weights: _Weights,
    rows: int,
    x: int,
    x_stride: int,
    sigma: int,
    modulation: int,
    modulation_rows: int,
    modulation_index: int,
    score: int,
    score_stride: int,
) -> None: ...
def score_matching(
    isa: str,
    threads: int,
    weights: _Weights,
    rows: int,
    x: int,
    x_stride: int,
    target: int,
    target_stride: int,
    weight: int,
    modulation: int,
    conditions: int,
    gradients: _Gradients,
) -> None: ...
def score_matching_layout(isa: str, hidden: int, dim: int) -> tuple[int, int, int]: ...
def score_matching_slices(
    isa: str,
    threads: int,
    weights: _Weights,
    rows: int,
    x: int,
    x_stride: int,
    target: int,
    target_stride: int,
    weight: int,
    modulation: int,
    conditions: int,
    gradients: _Gradients,
    buffers: _Gradients,
    first: int,
    last: int,
) -> None: ...
def score_matching_products(isa: str, threads: int, rows: int, products: list[_Product]) -> None: ...
def score_matching_ref_f64(
    weights: _Weights,
    rows: int,
    x: int,
    x_stride: int,
    target: int,
    target_stride: int,
    weight: int,
    modulation: int,
    conditions: int,
    gradients: _Gradients,
) -> None: ...
def dit_block(
    pack: DitPack,
    threads: int,
    sequences: int,
    tokens: int,
    x: int,
    modulation: tuple[int, int],
    bias: tuple[int, int, int, int, int],
    absent: int,
    memory: tuple[int, int, int],
    out: int,
) -> None: ...
def dit_block_ref_f64(
    sizes: tuple[int, int, int],
    weights: _BlockWeights,
    sequences: int,
    tokens: int,
    x: int,
    modulation: tuple[int, int],
    bias: tuple[int, int, int, int, int],
    absent: int,
    memory: tuple[int, int, int],
    out: int,
) -> None: ...
def dit_block_gradient(
    isa: str,
    threads: int,
    sizes: tuple[int, int, int],
    weights: _BlockWeights,
    sequences: int,
    tokens: int,
    x: int,
    modulation: tuple[int, int],
    bias: tuple[int, int, int, int, int],
    absent: int,
    memory: tuple[int, int, int],
    out_gradient: int,
    gradients: tuple[int, ...],
) -> None: ...
def spt_weights(
    isa: str,
    threads: int,
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
def spt_weights_ref_f64(
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
    isa: str,
    threads: int,
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
def particle_step_ref_f64(
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
def diffusion_step(
    isa: str,
    threads: int,
    sizes: tuple[int, int, int],
    v: _Rows,
    denoised: _Rows,
    previous: _Rows,
    missing: _Rows,
    v_new: _Rows,
    coefficients: tuple[float, float, float, float],
    noise: _Noise,
) -> None: ...
def diffusion_step_ref_f64(
    sizes: tuple[int, int, int],
    v: _Rows,
    denoised: _Rows,
    previous: _Rows,
    missing: _Rows,
    v_new: _Rows,
    coefficients: tuple[float, float, float, float],
    noise: _Noise,
) -> None: ...
def ball_quantile(
    isa: str,
    threads: int,
    sizes: tuple[int, int, int],
    x: tuple[int, int, int],
    missing: _Rows,
    rank: int,
    centre: _Rows,
    radius: int,
) -> None: ...
def ball_quantile_ref_f64(
    sizes: tuple[int, int, int],
    x: tuple[int, int, int],
    missing: _Rows,
    rank: int,
    centre: _Rows,
    radius: int,
) -> None: ...
def proximal_recursion(
    pack: MlpPack,
    threads: int,
    series: _Series,
    patches: _Patches,
    condition: _Condition,
    iterations: int,
    eta: float,
    spt: _Spt,
    adam: tuple[float, float, float] | None,
    dissipation: tuple[int, int] | None,
) -> None: ...
def proximal_recursion_ref_f64(
    weights: _Weights,
    head: str,
    series: _Series,
    patches: _Patches,
    condition: _Condition,
    iterations: int,
    eta: float,
    spt: _Spt,
    adam: tuple[float, float, float] | None,
    dissipation: tuple[int, int] | None,
) -> None: ...
def gaussian_conditional(
    isa: str,
    threads: int,
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
) -> None: ...
def gaussian_conditional_ref_f64(
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
) -> None: ...
def gaussian_whitening(
    isa: str,
    threads: int,
    sizes: tuple[int, int, int],
    x: _Rows,
    missing: _Rows,
    mean: _Rows,
    precision: int,
    outputs: tuple[int, ...],
) -> None: ...
def gaussian_whitening_ref_f64(
    sizes: tuple[int, int, int],
    x: _Rows,
    missing: _Rows,
    mean: _Rows,
    precision: int,
    outputs: tuple[int, ...],
) -> None: ...
def unrolled_attention(
    isa: str,
    threads: int,
    shape: tuple[int, int, int],
    data: _Six,
    process: _Six,
    rates: _Six,
    length: float,
    score: int,
    conditional_mean: int,
) -> None: ...
def unrolled_attention_ref_f64(
    shape: tuple[int, int, int],
    data: _Six,
    process: _Six,
    rates: _Six,
    length: float,
    score: int,
    conditional_mean: int,
) -> None: ...
