"""Files that appear only when they are complete."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside `path` to write to; flush it to disk and rename it to `path` when the block ends well.

    Whatever goes wrong in the block, an interrupt included, leaves `path` as it was and nothing beside it.

    Raises:
        ValueError: the folder does not exist, is not writable, or `path` is a folder.

    Example:
        >>> with written_aside("table.csv") as aside:  # doctest: +SKIP
        ...     frame.to_csv(aside)
    """
    check_place(path)
    target = Path(path)
    folder = target.parent
    try:
        # The suffix stays last: writers choose the format by it.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=folder)
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror}") from None
    os.close(descriptor)
    aside = Path(name)
    try:
        yield aside
        _set_usual_mode(aside, target)
        _flush(aside)
        aside.replace(target)
        _flush(folder)
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuse a place that cannot be written to, before the work whose result should go there.

    Raises:
        ValueError: the folder does not exist, is not writable, or `path` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"cannot write {target}: it is a folder")
    if not target.parent.is_dir():
        raise ValueError(f"cannot write {target}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"cannot write {target}: no permission in folder {target.parent}")


def _set_usual_mode(aside: Path, target: Path) -> None:
    """mkstemp makes private files: keep the mode of the file replaced, else the one a new file would have."""
    if target.exists():
        mode = target.stat().st_mode & 0o777
    else:
        umask = os.umask(0)
        os.umask(umask)
        mode = 0o666 & ~umask
    aside.chmod(mode)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
