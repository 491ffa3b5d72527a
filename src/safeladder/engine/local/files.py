"""Folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from safeladder.errors import StorageError


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
    temporary = path.with_name(f".{path.name}.partial")
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
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, StorageError):
            raise
        raise StorageError(_storage_message(path, error)) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _storage_message(path: Path, error: Exception) -> str:
    code = error.errno if isinstance(error, OSError) else None
    # safetensors reports the system's error only inside its text
    if code == errno.ENOSPC or "StorageFull" in str(error) or "code: 28" in str(error):
        return f"cannot write {path}: the disk is full; free some space or choose another --out"
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"cannot write {path}: the folder is read-only; choose another --out"
    return f"cannot write {path}: {error}"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
