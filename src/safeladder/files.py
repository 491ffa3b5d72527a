"""Files and folders that appear whole or not at all, and the line a user gets when they cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safeladder.errors import SafeLadderError, StorageError


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of ``path`` to write into; rename it to ``path`` at the end.

    Everything is on the disk (fsync) before the rename, so a reader, or a program killed at any
    moment, finds either no folder or a whole one. What a killed writer left is removed by the
    next writer of the same name.

    Raises:
        StorageError: ``path`` is there already, the disk is full, or nothing can be written.
    """
    if path.exists():
        raise StorageError(f"{path} is there already: remove it or choose another folder")
    temporary = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        for folder, _, files in os.walk(temporary):
            for name in files:
                _fsync(Path(folder) / name)
            _fsync(Path(folder))
        temporary.rename(path)
        _fsync(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_storage_failure(error):
            raise storage_error(path, error) from error
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of ``path`` to write; it replaces ``path`` at the end.

    Raises:
        StorageError: the disk is full, or nothing can be written.
    """
    temporary = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if is_storage_failure(error):
            raise storage_error(path, error) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        StorageError: the disk is full, or nothing can be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def partial_path(path: Path) -> Path:
    """Where ``path`` is written before it is whole."""
    return path.with_name(f".{path.name}.partial")


def is_storage_failure(error: BaseException) -> bool:
    """Whether the system, not the program, stopped a write."""
    if isinstance(error, SafeLadderError):
        return False
    # safetensors has an exception of its own, with the system's error only in its text.
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError"


def storage_error(path: Path, error: BaseException) -> StorageError:
    """The one line a user gets when ``path`` cannot be written."""
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ENOSPC or "StorageFull" in str(error) or "code: 28" in str(error):
        problem = "the disk is full; free some space or choose another --out"
    elif code in (errno.EROFS, errno.EACCES, errno.EPERM):
        problem = "the folder is read-only; choose another --out"
    else:
        problem = str(error)
    return StorageError(f"cannot write {path}: {problem}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
