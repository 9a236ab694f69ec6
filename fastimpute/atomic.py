"""Files and folders that appear only when they are complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_aside(path: str | os.PathLike[str], flushed: bool = True) -> Iterator[Path]:
    """Give a path beside `path` to write to; flush it to disk and rename it to `path` when the block ends well.

    Whatever goes wrong in the block, an interrupt included, leaves `path` as it was and nothing beside it.

    Args:
        path: where the file should go.
        flushed: False leaves it to the system when the file goes to disk: the end of the machine, though not that of
            the process, may then leave a torn one. For files with a checksum.

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
        if flushed:
            flush(aside)
        aside.replace(target)
        if flushed:
            flush(folder)
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The same for a folder: give an empty folder beside `path`, which takes its place when the block ends well.

    A folder that was there is renamed away first: for that moment there is none at `path`.

    Raises:
        ValueError: there is no folder around it, it is not writable, or `path` is a file.

    Example:
        >>> with folder_written_aside("table.zarr") as aside:  # doctest: +SKIP
        ...     dataset.to_zarr(aside)
    """
    target = Path(path)
    check_place(target, folder=True)
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent))
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror}") from None
    before = aside.with_name(f"{aside.stem}-before{target.suffix}")
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())
        flush_all(aside)
        if target.exists():
            target.rename(before)
        try:
            aside.rename(target)
        except OSError:
            if before.exists():
                before.rename(target)
            raise
        flush(target.parent)
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def check_place(path: str | os.PathLike[str], folder: bool = False) -> None:
    """Refuse a place that cannot be written to, before the work whose result should go there.

    Args:
        path: where the result should go.
        folder: whether the result is a folder.

    Raises:
        ValueError: the folder around it does not exist or is not writable; `path` is a folder where the result is a
            file, or the other way round.
    """
    target = Path(path)
    if target.is_dir() and not folder:
        raise ValueError(f"cannot write {target}: it is a folder")
    if target.is_file() and folder:
        raise ValueError(f"cannot write {target}: it is a file, where a folder should go")
    if not target.parent.is_dir():
        raise ValueError(f"cannot write {target}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"cannot write {target}: no permission in folder {target.parent}")


def _set_usual_mode(aside: Path, target: Path) -> None:
    """mkstemp makes private files: keep the mode of the file replaced, else the one a new file would have."""
    aside.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def flush_all(path: Path) -> None:
    """Have a file, or a folder and all in it, on the disk."""
    for place in (*path.rglob("*"), path):
        flush(place)


def flush(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
