"""The conditional diffusion transformer: an encoder of what was observed, a decoder of what is missing."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastimpute.nn.dit_block import DiTBlock
from fastimpute.nn.gap_features import gap_features
from fastimpute.nn.preconditioning import Preconditioning

NOISE_FREQUENCIES = 16


class Memory(NamedTuple):
    """All that depends on the windows alone and serves every draw and noise level.

    `frames` (n, k) are the decoded frames, None: all of them; `absent` (n, k) marks those nobody attends to. `tokens`
    (n, k, hidden) is their context, `keys` one (n, L, 2 hidden) per decoder block, `bias` (n or 1, heads, k, k + L).
    """

    missing: Tensor
    frames: Tensor | None
    absent: Tensor | None
    tokens: Tensor
    keys: tuple[Tensor, ...]
    bias: Tensor
    calendar: Tensor | None


class DiT(nn.Module):
    """Denoiser of windows (L frames of `channels` values) given their observed cells; one token per frame.

    The encoder sees the observed values, the mask and the gap features of all frames, once per window; the decoder sees
    the noisy residuals of the frames with missing cells, once per draw and noise level, and attends to the encoder's
    tokens. Both are stacks of adaLN-Zero blocks with one learned bias per head and lag. Values are residuals over a
    base in units of its standard deviation, so that the data has variance one; an untrained network returns the
    denoiser of that white Gaussian, c_skip v.

    Source: arXiv 2510.02216 (DiT for imputation: noise on missing entries only) with blocks of arXiv 2212.09748 and the
    preconditioning of arXiv 2206.00364. What the first leaves open and is chosen here: tokens, inputs, lag biases, the
    division into encoder and decoder.

    Args:
        channels: values per frame, d.
        window: most frames in a window.
        hidden: width of the tokens; the fused kernel takes multiples of 32.
        encoder_layers: blocks that read the observations. decoder_layers: blocks that read the noisy values.
        heads: attention heads, a divisor of `hidden`.
        feature_dim: features per frame; None: those of `gap_features`, 3 d.
        calendar_dim: width of the calendar phase of a window, 0 without one.

    Raises:
        ValueError: a size below one, or `hidden` no multiple of `heads`.

    Example:
        >>> import torch
        >>> from fastimpute.nn import DiT
        >>> net = DiT.tiny(channels=8, window=96)
        >>> missing = torch.rand(4, 96, 8) < 0.3
        >>> memory = net.encode(torch.randn(4, 96, 8), missing)
        >>> net.denoise(torch.randn(4, 96, 8), 0.5, memory).shape
        torch.Size([4, 96, 8])
    """

    def __init__(
        self,
        channels: int,
        window: int,
        *,
        hidden: int = 64,
        encoder_layers: int = 2,
        decoder_layers: int = 2,
        heads: int = 4,
        feature_dim: int | None = None,
        calendar_dim: int = 0,
    ) -> None:
        super().__init__()
        if min(channels, window, hidden, encoder_layers, decoder_layers) < 1:
            sizes = (channels, window, hidden, encoder_layers, decoder_layers)
            raise ValueError(
                f"channels, window, hidden, encoder_layers, decoder_layers: expected at least 1, got {sizes}"
            )
        self.channels, self.window, self.hidden, self.calendar_dim = channels, window, hidden, calendar_dim
        self.feature_dim = 3 * channels if feature_dim is None else feature_dim
        self.read = nn.Linear(2 * channels + self.feature_dim, hidden)
        self.read_noisy = nn.Linear(2 * channels, hidden)
        self.context = nn.Linear(hidden, hidden)
        self.noise_level = nn.Sequential(nn.Linear(2 * NOISE_FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.phase = nn.Linear(calendar_dim, hidden) if calendar_dim else None
        self.encoder = nn.ModuleList(DiTBlock(hidden, heads) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DiTBlock(hidden, heads) for _ in range(decoder_layers))
        self.memory_keys = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(decoder_layers))
        self.encoder_lags = nn.Parameter(torch.zeros(heads, 2 * window - 1))
        self.decoder_lags = nn.Parameter(torch.zeros(heads, 2 * window - 1))
        self.memory_lags = nn.Parameter(torch.zeros(heads, 2 * window - 1))
        self.last_modulation = nn.Linear(hidden, 2 * hidden)
        self.write = nn.Linear(hidden, channels)
        self.write_spread = nn.Linear(hidden, channels)
        for layer in (self.last_modulation, self.write, self.write_spread):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @classmethod
    def tiny(cls, channels: int, window: int, *, feature_dim: int | None = None, calendar_dim: int = 0) -> DiT:
        """Width 64, 2 + 2 blocks of 4 heads: 300 k parameters, minutes of training on one core."""
        return cls(channels, window, feature_dim=feature_dim, calendar_dim=calendar_dim)

    @classmethod
    def paper(cls, channels: int, window: int, *, feature_dim: int | None = None, calendar_dim: int = 0) -> DiT:
        """Width 256, 12 blocks of 16 heads (arXiv 2510.02216), here 6 that read and 6 that draw."""
        return cls(
            channels,
            window,
            hidden=256,
            encoder_layers=6,
            decoder_layers=6,
            heads=16,
            feature_dim=feature_dim,
            calendar_dim=calendar_dim,
        )

    def encode(
        self,
        observed: Tensor,
        missing: Tensor,
        features: Tensor | None = None,
        calendar: Tensor | None = None,
        *,
        backend: str = "auto",
        precision: str = "fp32",
    ) -> Memory:
        """Reads the windows, once for all draws and noise levels.

        Args:
            observed: (n, L, d); what stands in missing cells is ignored.
            missing: (n, L, d) bool, True where a value is missing.
            features: (n, L, feature_dim); None: `gap_features(missing)`.
            calendar: (n, calendar_dim), the calendar phase of each window; None exactly when calendar_dim is 0.
            backend, precision: of the blocks, as in `fastimpute.ops.dit_block`.

        Raises:
            ValueError: shapes that do not fit the network.
        """
        self._check_windows(observed, missing, calendar)
        features = gap_features(missing) if features is None else features
        if features.shape != (*missing.shape[:2], self.feature_dim):
            expected = (*missing.shape[:2], self.feature_dim)
            raise ValueError(f"features: expected shape {expected}, got {tuple(features.shape)}")
        dtype = self.read.weight.dtype
        inputs = torch.cat([observed.masked_fill(missing, 0).to(dtype), missing.to(dtype), features.to(dtype)], -1)
        phase = None if self.phase is None else self.phase(calendar)
        condition = functional.silu(self.read.weight.new_zeros(1, self.hidden) if phase is None else phase)
        positions = torch.arange(missing.shape[1], device=missing.device)[None]
        bias = self._lag_bias(self.encoder_lags, positions, positions).transpose(-1, -2)
        tokens = self.read(inputs)
        for block in self.encoder:
            tokens = block(tokens, condition, bias, backend=backend, precision=precision)
        tokens = functional.layer_norm(tokens, (self.hidden,))
        frames, absent = frames_to_decode(missing)
        queries = positions if frames is None else frames
        bias = torch.cat(
            [
                self._lag_bias(self.decoder_lags, queries, queries),
                self._lag_bias(self.memory_lags, queries, positions),
            ],
            -2,
        )
        context = self.context(_gather(tokens, frames))
        keys = tuple(layer(tokens) for layer in self.memory_keys)
        return Memory(missing, frames, absent, context, keys, bias.transpose(-1, -2), phase)

    def decode(
        self,
        memory: Memory,
        noisy: Tensor,
        sigma: float | Tensor,
        *,
        backend: str = "auto",
        precision: str = "fp32",
    ) -> Tensor:
        """The raw network F (m, L, d) at `noisy` (m, L, d), already scaled by c_in; zero in observed cells.

        m is a multiple of the number n of windows in `memory`: row i is a draw of window i modulo n. `sigma` is one
        noise level or (m,). `backend` and `precision` as in `encode`.

        Raises:
            ValueError: `noisy` or `sigma` of another shape, or a number `sigma` that is not positive.
        """
        tokens, condition = self._decoded(memory, noisy, sigma, backend, precision)
        return self._placed(self.write(self._last(tokens, condition)), memory)

    def _decoded(
        self, memory: Memory, noisy: Tensor, sigma: float | Tensor, backend: str, precision: str
    ) -> tuple[Tensor, Tensor]:
        """Tokens (m, k, hidden) of the decoded frames, and the condition."""
        windows, frames, channels = memory.missing.shape
        draws, level = self._draws(memory, noisy), _noise_level(sigma, noisy)
        missing = memory.missing.expand(draws, windows, frames, channels)
        noisy = noisy.reshape(missing.shape).masked_fill(~missing, 0)
        parts = torch.cat([noisy, missing.to(noisy.dtype)], -1)
        if memory.frames is not None:
            index = memory.frames[None, :, :, None].expand(draws, -1, -1, parts.shape[-1])
            parts = parts.gather(2, index)
        tokens = (self.read_noisy(parts) + memory.tokens).flatten(0, 1)
        absent = None if memory.absent is None else memory.absent.repeat(draws, 1)
        condition = self._condition(level, memory, draws)
        for block, keys in zip(self.decoder, memory.keys, strict=True):
            tokens = block(tokens, condition, memory.bias, absent, keys, backend=backend, precision=precision)
        return tokens, condition

    def _placed(self, out: Tensor, memory: Memory) -> Tensor:
        """Values (m, k, d) of the decoded frames at their places in windows (m, L, d), zero in observed cells."""
        windows, frames, channels = memory.missing.shape
        draws = out.shape[0] // windows if windows else 1
        if memory.frames is not None:
            index = memory.frames.repeat(draws, 1)[:, :, None].expand(-1, -1, channels)
            out = out.new_zeros(draws * windows, frames, channels).scatter(1, index, out)
        return out.masked_fill(~memory.missing.repeat(draws, 1, 1), 0)

    def denoise(
        self,
        v: Tensor,
        sigma: float | Tensor,
        memory: Memory,
        *,
        backend: str = "auto",
        precision: str = "fp32",
    ) -> Tensor:
        """E[y | v] (m, L, d) for noisy residuals v = y + sigma noise (m, L, d); zero in observed cells.

        Args:
            v: rows i are draws of window i modulo n, in units of the residual's standard deviation.
            sigma: positive noise level in the same units, one number or (m,).
            memory: of `encode`.
            backend, precision: as in `encode`.

        Raises:
            ValueError: shapes that do not fit, or a number `sigma` that is not positive.
        """
        factors = Preconditioning.at(_noise_level(sigma, v)[:, None, None])
        raw = self.decode(memory, factors.scale * v, sigma, backend=backend, precision=precision)
        draws = v.shape[0] // max(len(memory.missing), 1)
        kept = v.masked_fill(~memory.missing.repeat(draws, 1, 1), 0)
        return factors.skip * kept + factors.out * raw

    def decode_with_spread(
        self,
        memory: Memory,
        noisy: Tensor,
        sigma: float | Tensor,
        *,
        backend: str = "auto",
        precision: str = "fp32",
    ) -> tuple[Tensor, Tensor]:
        """`decode` (m, L, d), and the logarithm (m, L, d) of the deviation of what is observed nowhere.

        The second is learned where the noisy values say nothing: how far the values scatter around their mean, in units
        of the base's deviation. Zero in observed cells, and everywhere in an untrained network.

        Args and Raises: as `decode`.
        """
        tokens, condition = self._decoded(memory, noisy, sigma, backend, precision)
        last = self._last(tokens, condition)
        return self._placed(self.write(last), memory), self._placed(self.write_spread(last), memory)

    def _condition(self, level: Tensor, memory: Memory, draws: int) -> Tensor:
        """The decoder's condition: one row, one per window, or one per row."""
        powers = torch.arange(NOISE_FREQUENCIES, dtype=level.dtype, device=level.device)
        # log(sigma) / 4 lies within about 1.2; wavelengths from 4 down to 1/4 of that.
        angles = Preconditioning.at(level).noise[:, None] * torch.exp2(powers / 4) * (math.pi / 2)
        embedded: Tensor = self.noise_level(torch.cat([angles.sin(), angles.cos()], -1))
        if memory.calendar is None:
            return functional.silu(embedded)
        calendar = memory.calendar if level.shape[0] == 1 else memory.calendar.repeat(draws, 1)
        return functional.silu(embedded + calendar)

    def _last(self, tokens: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.last_modulation(condition).chunk(2, -1)
        repeats = tokens.shape[0] // condition.shape[0] if condition.shape[0] > 1 else 1
        gain, shift = (part.repeat(repeats, 1)[:, None] for part in (gain, shift))
        return torch.addcmul(shift, functional.layer_norm(tokens, (self.hidden,)), 1 + gain)

    def _lag_bias(self, table: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """(n or 1, heads, keys, queries): the kernel reads a key's row for many queries at once."""
        lags = queries[:, None, :] - keys[:, :, None] + self.window - 1
        return table[:, lags].transpose(0, 1)

    def _draws(self, memory: Memory, noisy: Tensor) -> int:
        windows, frames, channels = memory.missing.shape
        fits = noisy.dim() == 3 and noisy.shape[1:] == (frames, channels)
        if not fits or (noisy.shape[0] % windows if windows else noisy.shape[0]):
            expected = f"(a multiple of {windows}, {frames}, {channels})"
            raise ValueError(f"noisy values: expected shape {expected}, got {tuple(noisy.shape)}")
        return noisy.shape[0] // windows if windows else 1

    def _check_windows(self, observed: Tensor, missing: Tensor, calendar: Tensor | None) -> None:
        if observed.dim() != 3 or observed.shape[2] != self.channels or not 1 <= observed.shape[1] <= self.window:
            expected = f"(n, 1 to {self.window}, {self.channels})"
            raise ValueError(f"observed: expected shape {expected}, got {tuple(observed.shape)}")
        if missing.shape != observed.shape:
            raise ValueError(f"missing: expected shape {tuple(observed.shape)}, got {tuple(missing.shape)}")
        wanted = (observed.shape[0], self.calendar_dim) if self.calendar_dim else None
        got = None if calendar is None else tuple(calendar.shape)
        if got != wanted:
            raise ValueError(f"calendar: expected {wanted}, got {got}")


def _noise_level(sigma: float | Tensor, rows: Tensor) -> Tensor:
    """`sigma` as one value or one per row."""
    if not isinstance(sigma, Tensor) and not sigma > 0:
        raise ValueError(f"sigma: expected a positive number, got {sigma}")
    level = torch.as_tensor(sigma, dtype=rows.dtype, device=rows.device).reshape(-1)
    if level.shape[0] not in (1, rows.shape[0]):
        raise ValueError(f"sigma: expected one number or shape ({rows.shape[0]},), got {level.shape[0]} values")
    return level


def frames_to_decode(missing: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The k frames (n, k) that the decoder runs on, and which of them (n, k) have no missing cell and only fill up.

    k is the largest number of frames with a missing cell in any window. Frames None: all frames, in order; second None:
    none fills up. Frames that fill up are attended by none, so a window's result does not depend on the others.
    """
    needed = missing.any(-1)
    counts = needed.sum(-1)
    most = max(int(counts.max()), 1) if counts.numel() else needed.shape[1]
    if most == needed.shape[1]:
        frames, absent = None, ~needed
    else:
        # Stable: needed frames first, in order.
        frames = needed.logical_not().to(torch.uint8).sort(dim=1, stable=True).indices[:, :most]
        absent = torch.arange(most, device=missing.device) >= counts[:, None]
    return frames, absent if bool(absent.any()) else None


def _gather(tokens: Tensor, frames: Tensor | None) -> Tensor:
    if frames is None:
        return tokens
    return tokens.gather(1, frames[:, :, None].expand(-1, -1, tokens.shape[-1]))
