"""A device that exists only in Python: tensors in the memory of the CPU that say they are elsewhere.

It behaves as a GPU where code can go wrong without one: operands of two devices are an error, and every
kernel and every wait of the host for the device is counted with the line of ours that caused it.
"""

import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import embedtrain

NAME = "fakegpu"
PACKAGE = str(Path(embedtrain.__file__).parent)
VIEWS = frozenset(
    "view t transpose permute expand select slice unsqueeze squeeze detach alias as_strided split unbind "
    "unfold _unsafe_view reshape _reshape_alias chunk split_with_sizes diagonal lift_fresh".split()
)
# What gives the host a number or a size that depends on values: it waits until all work before is done.
WAITS = frozenset(
    "_local_scalar_dense nonzero unique_dim _unique2 unique_consecutive unique_dim_consecutive masked_select "
    "equal repeat_interleave is_nonzero item allclose _linalg_svd _linalg_eigh".split()
)
INDEXING = frozenset("index index_put index_put_ _index_put_impl_".split())


class _Backend:
    """What torch asks of the module of a device; it is there only while `fake_device` is open."""

    there = False

    def is_available(self):
        return self.there

    def is_initialized(self):
        return self.there

    def device_count(self):
        return int(self.there)

    def current_device(self):
        return 0

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self):
        return False

    def get_rng_state(self, *_):
        return torch.get_rng_state()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


_BACKEND = _Backend()
_setup_privateuseone_for_python_backend(NAME, backend_module=_BACKEND)
FAKE = torch.device(NAME, 0)
_device_constructors()  # remembers `torch.tensor`, which is another below


class Counts:
    """What the device was asked: `kernels` by name; `waits` and `copies` (asynchronous, to it) by line."""

    def __init__(self):
        self.kernels, self.waits, self.copies = Counter(), Counter(), Counter()

    def since(self, before):
        """The counts since a copy of them was made."""
        now = Counts()
        for name, value in vars(self).items():
            setattr(now, name, value - vars(before)[name])
        return now

    def copy(self):
        return self.since(Counts())


class OnFake(torch.Tensor):
    """A tensor of the device; `host` is its memory."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=FAKE,
            requires_grad=False,
        )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})

    def tolist(self):
        _COUNTS.waits[f"tolist {_line()}"] += 1
        return self.host.tolist()

    def numpy(self, **_):
        raise TypeError("can't convert a tensor of the fake device to numpy")

    def __repr__(self):
        return f"OnFake({self.host!r})"


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


_COUNTS = Counts()


@contextmanager
def fake_device():
    """The counts, while the device is there."""
    for counter in vars(_COUNTS).values():
        counter.clear()
    plain, pinned = torch.tensor, torch.Tensor.pin_memory

    def tensor(data, *args, device=None, **kwargs):
        return (
            plain(data, *args, **kwargs).to(device)
            if _is_fake(device)
            else plain(data, *args, device=device, **kwargs)
        )

    torch.tensor, torch.Tensor.pin_memory = tensor, lambda self, *_: self
    _BACKEND.there = True
    try:
        with _Watch():
            yield _COUNTS
    finally:
        torch.tensor, torch.Tensor.pin_memory = plain, pinned
        _BACKEND.there = False


def _line():
    """The line of our package that is running, else the last one of another."""
    stack = traceback.extract_stack()
    ours = [frame for frame in stack if frame.filename.startswith(PACKAGE)]
    others = [
        frame for frame in stack if "site-packages" in frame.filename and "/torch/" not in frame.filename
    ]
    frame = [*others, *ours][-1] if ours or others else stack[0]
    return f"{frame.filename.removeprefix(PACKAGE).rpartition('site-packages')[2]}:{frame.lineno}"


def _is_fake(device):
    return device is not None and torch.device(device).type == NAME


def _host(value):
    return value.host if isinstance(value, OnFake) else value


def _run(function, args, kwargs):
    name = function._schema.name.split("::")[-1]
    tensors = [item for item in tree_leaves((args, kwargs)) if isinstance(item, torch.Tensor)]
    here = any(isinstance(item, OnFake) for item in tensors)
    device = kwargs.get("device")
    if not here and not _is_fake(device):
        return function(*args, **kwargs)
    if name == "_to_copy":
        return _copied(function, args, kwargs)
    if name == "copy_":
        return _copied_into(*args)
    if here:
        _check(name, args, [item for item in tensors if not isinstance(item, OnFake) and item.dim()])
    if name in WAITS:
        _COUNTS.waits[f"{name} {_line()}"] += 1
    elif name not in VIEWS:
        _COUNTS.kernels[name] += 1
    moved = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items()}
    found = function(*tree_map(_host, args), **tree_map(_host, moved))
    if name == "_local_scalar_dense":
        return found
    changed = [item for item in tensors if isinstance(item, OnFake) and item.host is found]
    if changed:  # in place: given back as it came
        return changed[0]
    return tree_map(lambda item: OnFake(item) if isinstance(item, torch.Tensor) else item, found)


def _copied(function, args, kwargs):
    source = isinstance(args[0], OnFake)
    target = _is_fake(kwargs["device"]) if kwargs.get("device") is not None else source
    host = {
        key: value for key, value in kwargs.items() if key not in ("device", "non_blocking", "pin_memory")
    }
    made = function(_host(args[0]), **host)
    if source and not target:
        _COUNTS.waits[f"to the host {_line()}"] += 1
    elif target and not source:
        (_COUNTS.copies if kwargs.get("non_blocking") else _COUNTS.waits)[f"to the device {_line()}"] += 1
    elif target:
        _COUNTS.kernels["_to_copy"] += 1
    return OnFake(made) if target else made


def _copied_into(target, source, non_blocking=False):
    here, there = isinstance(target, OnFake), isinstance(source, OnFake)
    if there and not here:
        _COUNTS.waits[f"to the host {_line()}"] += 1
    elif here and not there and source.dim():
        (_COUNTS.copies if non_blocking else _COUNTS.waits)[f"to the device {_line()}"] += 1
    elif here:
        _COUNTS.kernels["copy_"] += 1
    _host(target).copy_(_host(source))
    return target


def _check(name, args, strangers):
    """Operands of the host are an error but for indices, which CUDA copies, and waits for."""
    if name in INDEXING:
        if strangers and isinstance(args[0], OnFake):
            _COUNTS.waits[f"index of the host {_line()}"] += 1
            return
        masks = [
            item
            for item in tree_leaves(args[1])
            if isinstance(item, torch.Tensor) and item.dtype == torch.bool
        ]
        fills = name != "index" and args[2].numel() == 1 and len(tree_leaves(args[1])) == 1
        if masks and not fills:  # of which there are as many as are true
            _COUNTS.waits[f"bool {name} {_line()}"] += 1
    if strangers:
        raise RuntimeError(f"{name} at {_line()} has operands of the fake device and of the CPU")
