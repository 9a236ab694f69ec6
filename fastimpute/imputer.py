"""BaseImputer: everything imputers share, in the manner of scikit-learn and without needing it.

A method writes four hooks over standardised `Series` of sensors that have data; reading the user's data, validation,
scaling, sensors without data, putting observed cells back and saving are done here.
"""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastimpute.layouts import Layout, read_layout
from fastimpute.saved import name_keys, write_model
from fastimpute.series import Scaler, Series

State = TypeVar("State")
ALL_MISSING = ("raise", "mean_of_neighbors", "keep")


class NotFittedError(ValueError, AttributeError):
    """The imputer was asked for something that needs `fit` first."""


class BaseImputer(ABC, Generic[State]):
    """What every imputer does around its method.

    A subclass stores its keyword arguments unchanged in `__init__`, `all_missing` among them, and writes
    `_fit_series`, `_impute_series`, `_pack_state`, `_unpack_state`. Hooks return new objects and never change `self`
    or the series: an interrupted `fit` then leaves the imputer as it was before.

    Attributes:
        bytes_per_cell: memory that fitting or filling takes at most, beside the table, per cell of it.
        relates_sensors: whether a sensor's gaps are filled from other sensors too.
        n_features_in_: number of sensors, after fit.
        feature_names_in_: (N,) object array of sensor names, after fit on data that has names.
        live_: (N,) bool, which sensors had any observation in fit.
        scaler_: mean and deviation of each sensor's observed cells in fit.
        state_: what the method learned.
    """

    all_missing: str
    bytes_per_cell: ClassVar[int]
    relates_sensors: ClassVar[bool] = True
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    live_: NDArray[np.bool_]
    scaler_: Scaler
    state_: State
    _fitted_names: ClassVar[tuple[str, ...]] = ("n_features_in_", "feature_names_in_", "live_", "scaler_", "state_")

    # ---- hooks of a method -------------------------------------------------------------------------------------

    @abstractmethod
    def _fit_series(self, series: Series) -> State:
        """Learn from a series whose every sensor has an observation."""

    @abstractmethod
    def _impute_series(self, series: Series, state: State) -> NDArray[np.float32]:
        """Return standardised values (T, N) with all missing cells filled; a sensor may be wholly missing here."""

    def _fit_impute_series(self, series: Series) -> tuple[State, NDArray[np.float32]]:
        """Learn from a series and fill it; for methods whose training fills the series anyway."""
        state = self._fit_series(series)
        return state, self._impute_series(series, state)

    @abstractmethod
    def _pack_state(self, state: State) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Split a state into arrays and JSON-able facts."""

    @abstractmethod
    def _unpack_state(self, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> State:
        """Inverse of `_pack_state`."""

    # ---- the scikit-learn surface ------------------------------------------------------------------------------

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn from X, missing cells NaN.

        Args:
            X: (T, N) array, tensor, wide DataFrame or DataArray, or (samples, steps, features), or {"X": ...}.
            y: ignored; scikit-learn pipelines pass it.

        Raises:
            TypeError: X is of a type not known.
            ValueError: X is empty, holds infinities, a column that is not numeric, a sensor without any observation
                (with all_missing="raise"), or time stamps that are repeated, unsorted or irregular.
        """
        layout, series, live = self._open_for_fit(X)
        state = self._fit_series(series.select(np.flatnonzero(live)))
        self._keep_fit(layout, series.scaler, live, state)
        return self

    def fit_sample(self, X: Any, scaler: Scaler) -> Self:
        """Learn from some rows of data too large to be learned from as a whole.

        Args:
            X: as for `fit`, with an observation of every sensor that the scaler knows.
            scaler: mean and deviation of each sensor over all of the data, NaN for one never observed.

        Raises:
            TypeError, ValueError: as `fit`.
        """
        layout, series, live = self._open_for_fit(X, scaler)
        state = self._fit_series(series.select(np.flatnonzero(live)))
        self._keep_fit(layout, scaler, live, state)
        return self

    def transform(self, X: Any) -> Any:
        """Fill new data of the sensors the imputer was fitted on.

        Returns:
            The type that came in, with its index, columns and dtype, observed cells bit for bit; integers are
            returned as they are, as they cannot be missing, and columns of nullable integers become floating where
            something was filled in.

        Raises:
            NotFittedError: before fit.
            TypeError, ValueError: as in `fit`; or the sensors of X are not those of fit.
        """
        self._require_fit()
        layout = read_layout(X)
        self._check_sensors(layout)
        series = Series.from_layout(layout, self.scaler_)
        if not series.missing.any():
            return layout.restore(np.empty((0, 0)), series.missing)
        filled = self._impute_series(series.select(np.flatnonzero(self.live_)), self.state_)
        return self._close(layout, series, self.live_, filled)

    def fit_transform(self, X: Any, y: object = None) -> Any:
        """Fit on X and fill it; see `fit` and `transform`."""
        layout, series, live = self._open_for_fit(X)
        state, filled = self._fit_impute_series(series.select(np.flatnonzero(live)))
        out = self._close(layout, series, live, filled)
        self._keep_fit(layout, series.scaler, live, state)
        return out

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The keyword arguments of the constructor and their values."""
        return {name: getattr(self, name) for name in self._param_names()}

    def set_params(self, **params: Any) -> Self:
        """Set keyword arguments of the constructor.

        Raises:
            ValueError: there is no such argument.
        """
        known = self._param_names()
        for name in params:
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(known)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def clone(self) -> Self:
        """A new imputer with the same settings, not fitted."""
        return type(self)(**self.get_params())

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Sensor names, as scikit-learn asks for them: what goes out is what came in."""
        self._require_fit()
        if hasattr(self, "feature_names_in_"):
            return self.feature_names_in_
        return np.array([f"x{column}" for column in range(self.n_features_in_)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        inputs = InputTags(two_d_array=True, three_d_array=True, allow_nan=True)
        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=inputs,
        )

    def __repr__(self) -> str:
        defaults = {name: p.default for name, p in inspect.signature(type(self).__init__).parameters.items()}
        changed = [
            f"{name}={value!r}" for name, value in self.get_params().items() if repr(value) != repr(defaults[name])
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    # ---- saving ------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted imputer to one safetensors file, which `fastimpute.load` reads without further arguments.

        Raises:
            NotFittedError: before fit.
            ValueError: the path cannot be written, or a setting has no JSON form (a generator as random_state).
        """
        self._require_fit()
        arrays, facts = self._pack_state(self.state_)
        own = {"base.live": self.live_, "base.mean": self.scaler_.mean, "base.std": self.scaler_.std}
        names = name_keys(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None
        header = {"class": type(self).__name__, "params": self.get_params(), "names": names, "facts": facts}
        write_model(path, {**own, **{f"state.{name}": array for name, array in arrays.items()}}, header)

    def restore_fit(self, arrays: dict[str, NDArray[Any]], header: dict[str, Any]) -> None:
        """Take over what `save` wrote; `fastimpute.load` calls it."""
        states = {name[len("state.") :]: array for name, array in arrays.items() if name.startswith("state.")}
        state = self._unpack_state(states, header["facts"])
        scaler = Scaler(arrays["base.mean"], arrays["base.std"])
        self._keep(scaler, arrays["base.live"].astype(bool), header["names"], state)

    # ---- shared steps ------------------------------------------------------------------------------------------

    @classmethod
    def _param_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def _open_for_fit(self, X: Any, scaler: Scaler | None = None) -> tuple[Layout, Series, NDArray[np.bool_]]:
        if self.all_missing not in ALL_MISSING:
            raise ValueError(f"all_missing must be one of {', '.join(ALL_MISSING)}, got {self.all_missing!r}")
        layout = read_layout(X)
        series = Series.from_layout(layout, scaler)
        live: NDArray[np.bool_] = np.asarray(~series.missing.all(axis=0))
        if not live.any():
            raise ValueError(f"X of shape {series.shape} has no observed cell at all")
        if self.all_missing == "raise" and not live.all():
            raise ValueError(_no_observation(layout.names, live))
        return layout, series, live

    def _keep_fit(self, layout: Layout, scaler: Scaler, live: NDArray[np.bool_], state: State) -> None:
        self._keep(scaler, live, list(layout.names) if layout.named else None, state)

    def _keep(self, scaler: Scaler, live: NDArray[np.bool_], names: list[Any] | None, state: State) -> None:
        fitted: dict[str, Any] = {
            "n_features_in_": live.size,
            "live_": live,
            "scaler_": scaler,
            "state_": state,
        }
        if names is not None:
            fitted["feature_names_in_"] = _object_array(names)
        kept = {name: value for name, value in vars(self).items() if name not in self._fitted_names}
        self.__dict__ = {**kept, **fitted}  # one assignment: all of a fit or nothing of it

    def _require_fit(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit first")

    def _check_sensors(self, layout: Layout) -> None:
        if len(layout.names) != self.n_features_in_:
            raise ValueError(f"X has {len(layout.names)} sensors, but the imputer was fitted on {self.n_features_in_}")
        if not (layout.named and hasattr(self, "feature_names_in_")):
            return
        fitted, given = name_keys(self.feature_names_in_), name_keys(layout.names)
        if fitted == given:
            return
        lacking = [name for name in fitted if name not in set(given)]
        if lacking:
            extra = [name for name in given if name not in set(fitted)]
            raise ValueError(f"the sensors of X are not those of fit: {lacking[0]!r} is absent, {extra[0]!r} is new")
        raise ValueError("the sensors of X are those of fit in another order: use X[imputer.feature_names_in_]")

    def _close(self, layout: Layout, series: Series, live: NDArray[np.bool_], filled: NDArray[np.float32]) -> Any:
        """Back to the user's units and type; the cells of sensors that fit saw nothing of follow `all_missing`."""
        columns = np.flatnonzero(live)
        values = np.full(series.shape, np.nan)
        values[:, columns] = series.scaler.select(columns).unscale(filled)
        cells = series.missing
        if not live.all():
            if self.all_missing == "keep":
                cells = cells & live
            else:
                observed = np.where(series.missing[:, columns], values[:, columns], layout.raw[:, columns])
                values[:, ~live] = observed.mean(axis=1, keepdims=True)
        if not np.isfinite(values[cells]).all():
            raise RuntimeError(f"{type(self).__name__} left cells without a finite value; please report this")
        return layout.restore(values, cells)


def _no_observation(names: tuple[Hashable, ...], live: NDArray[np.bool_]) -> str:
    columns = np.flatnonzero(~live)
    more = f" (and {columns.size - 1} more)" if columns.size > 1 else ""
    return (
        f"column {names[columns[0]]!r}{more} has no observed value: drop it, or choose "
        "all_missing='mean_of_neighbors' or all_missing='keep'"
    )


def _object_array(names: list[Any]) -> NDArray[np.object_]:
    array = np.empty(len(names), dtype=object)  # np.array would unpack tuples
    array[:] = names
    return array
