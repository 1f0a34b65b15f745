import io
import zipfile

import pytest
import torch

from embedtrain.files.checksum import LENGTH, fault_of, write_hashed


@pytest.fixture
def hashed(tmp_path):
    path = tmp_path / "state.ckpt"
    with path.open("w+b") as file:
        write_hashed(file, lambda hashed: torch.save({"weights": torch.arange(5.0), "step": 3}, hashed))
    return path


def test_a_hashed_file_is_read_as_any_other(hashed):
    assert fault_of(hashed) is None
    state = torch.load(hashed, weights_only=True)
    assert state["step"] == 3
    assert torch.equal(state["weights"], torch.arange(5.0))
    assert zipfile.ZipFile(hashed).testzip() is None


def test_every_altered_byte_is_seen(hashed):
    whole = hashed.read_bytes()
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1 << (place % 8)
        hashed.write_bytes(altered)
        assert fault_of(hashed), f"byte {place} of {len(whole)}"


def test_every_truncation_is_seen(hashed):
    whole = hashed.read_bytes()
    for length in range(len(whole)):
        hashed.write_bytes(whole[:length])
        assert fault_of(hashed), f"{length} bytes of {len(whole)}"


@pytest.mark.parametrize("more", [b"\0", b"x" * 5000], ids=["a byte", "many"])
def test_what_is_appended_is_seen(hashed, more):
    hashed.write_bytes(hashed.read_bytes() + more)
    assert "does not end with its SHA-256" in fault_of(hashed)


def test_faults_say_what_is_wrong(hashed, tmp_path):
    whole = hashed.read_bytes()
    hashed.write_bytes(whole[:LENGTH])
    assert fault_of(hashed) == f"is cut short: {LENGTH} bytes are left"
    hashed.write_bytes(b"y" + whole[1:])
    assert fault_of(hashed) == "is not what was written: its SHA-256 differs"
    torch.save({}, tmp_path / "plain.ckpt")
    assert "no checkpoint of embedtrain" in fault_of(tmp_path / "plain.ckpt")


def test_only_an_archive_can_end_with_its_hash():
    with pytest.raises(ValueError, match="only a zip archive"):
        write_hashed(io.BytesIO(), lambda file: file.write(b"anything"))
