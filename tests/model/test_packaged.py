"""A model whose archive lies in parts in several packages is put together once, and only the right one."""

import hashlib
import io
import zipfile

import pytest

from embedtrain.model.packaged import WEIGHTS, unpack
from embedtrain.types import InputError

PARTS = ("tiny-part-001", "tiny-part-002")
WEIGHT = bytes(range(256)) * 40


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs an archive in two parts, cut at a byte, under a folder that no import could name."""

    def put(names, packages=PARTS):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.writestr(name, WEIGHT if name.endswith(WEIGHTS) else b"{}")
        site, data = tmp_path / "site", archive.getvalue()
        for number, package in enumerate(packages, 1):
            part = data[:5000] if number == 1 else data[5000:]
            inner = f"{package}_x/input/tiny.zip.{number:03d}"
            about = site / f"{package.replace('-', '_')}-1.dist-info"
            for path, content in (
                (site / inner, part),
                (about / "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n".encode()),
                (about / "RECORD", f"{inner},,\n".encode()),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        monkeypatch.syspath_prepend(str(site))

    return put


def right(folder):
    return unpack(folder, PARTS, hashlib.sha256(WEIGHT).hexdigest())


def test_the_parts_become_a_folder_that_is_left_as_it_is(install, tmp_path):
    install([f"tiny/{WEIGHTS}", "tiny/1_Pooling/config.json", "tiny/desktop.ini"])
    folder = right(tmp_path / "model")
    assert (folder / WEIGHTS).read_bytes() == WEIGHT
    assert (folder / "1_Pooling/config.json").is_file()
    assert not (folder / "desktop.ini").exists()
    before = (folder / WEIGHTS).stat().st_mtime_ns
    assert right(folder).joinpath(WEIGHTS).stat().st_mtime_ns == before


def test_what_is_not_right_writes_nothing(install, tmp_path):
    with pytest.raises(InputError, match=r"tiny-part-001 is not installed. Install them with"):
        right(tmp_path / "model")
    install([f"tiny/{WEIGHTS}"])
    with pytest.raises(InputError, match=r"model.safetensors has sha256 \w+, that of the hub is 00"):
        unpack(tmp_path / "model", PARTS, "00")
    with pytest.raises(InputError, match="archive in tiny-part-002"):
        unpack(tmp_path / "model", PARTS[1:], "00")
    assert not (tmp_path / "model").exists()


def test_a_name_that_leads_out_is_refused(install, tmp_path):
    install([f"tiny/{WEIGHTS}", "tiny/../../out.txt"])
    with pytest.raises(InputError, match="leads out of the folder"):
        right(tmp_path / "model")
    assert not (tmp_path / "out.txt").exists()
