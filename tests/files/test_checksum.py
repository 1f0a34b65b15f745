import io
import zipfile

import pytest
import torch

from embedtrain.files.checksum import LENGTH, fault_of, write_sealed


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "state.ckpt"
    with path.open("w+b") as file:
        write_sealed(file, lambda hashed: torch.save({"weights": torch.arange(5.0), "step": 3}, hashed))
    return path


def test_a_sealed_file_is_read_as_any_other(sealed):
    assert fault_of(sealed) is None
    state = torch.load(sealed, weights_only=True)
    assert state["step"] == 3
    assert torch.equal(state["weights"], torch.arange(5.0))
    assert zipfile.ZipFile(sealed).testzip() is None


def test_every_altered_byte_is_seen(sealed):
    whole = sealed.read_bytes()
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1 << (place % 8)
        sealed.write_bytes(altered)
        assert fault_of(sealed), f"byte {place} of {len(whole)}"


def test_every_truncation_is_seen(sealed):
    whole = sealed.read_bytes()
    for length in range(len(whole)):
        sealed.write_bytes(whole[:length])
        assert fault_of(sealed), f"{length} bytes of {len(whole)}"


@pytest.mark.parametrize("more", [b"\0", b"x" * 5000], ids=["a byte", "many"])
def test_what_is_appended_is_seen(sealed, more):
    sealed.write_bytes(sealed.read_bytes() + more)
    assert "does not end with its SHA-256" in fault_of(sealed)


def test_faults_say_what_is_wrong(sealed, tmp_path):
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:LENGTH])
    assert fault_of(sealed) == f"is cut short: {LENGTH} bytes are left"
    sealed.write_bytes(b"y" + whole[1:])
    assert fault_of(sealed) == "is not what was written: its SHA-256 differs"
    torch.save({}, tmp_path / "plain.ckpt")
    assert "no checkpoint of embedtrain" in fault_of(tmp_path / "plain.ckpt")


def test_only_an_archive_can_be_sealed():
    with pytest.raises(ValueError, match="only a zip archive"):
        write_sealed(io.BytesIO(), lambda file: file.write(b"anything"))
