"""FSDP2: each rank keeps its share of the backbone's weights and gathers a block while it runs.

Zhao et al. 2023 (arXiv:2304.11277), as `torch.distributed.fsdp.fully_shard` does it. The pooling and what the
loss trains are small and stay whole on every rank; `average_gradients` does for them what DDP would.

Gathering a block is a message in which all ranks take part, so all must run the blocks equally often: who
cuts a batch into parts asks `most_over_ranks` how many there are to be, and runs empty ones to get there.

Checkpoints hold whole weights and the optimiser's whole state in the form of a single process, so a run may
continue on another number of ranks, with DDP or alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from embedtrain.training.distributed import mean_over_ranks


class Sharded(ModelParallelStrategy):
    """Lightning's FSDP2, with the checkpoints of a single process.

    Args:
        ranks: how many share the weights.
        backend: of the process group.
        timeout: how long ranks wait for each other.
    """

    def __init__(self, ranks: int, backend: str, timeout: datetime.timedelta) -> None:
        super().__init__(
            data_parallel_size=ranks,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
            timeout=timeout,
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: the state of the optimiser comes from the checkpoint as with other strategies."""
        return True

    def setup_optimizers(self, trainer: Any) -> None:  # noqa: ANN401
        """Build them; not `foreach` or fused, which cannot update shares and whole parameters together."""
        super().setup_optimizers(trainer)
        self._one_by_one()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights in the memory of rank 0's host; nothing on other ranks. All must call."""
        assert self.model is not None
        first = self.global_rank == 0
        state = {name: whole(value, keep=first) for name, value in self.model.state_dict().items()}
        return state if first else {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this rank's share of the weights of a checkpoint, which every rank has read.

        Raises:
            KeyError: for a weight that the checkpoint lacks.
        """
        assert self.model is not None
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(share_of(checkpoint["state_dict"][name], value))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As `state_dict()` of a single process, on rank 0; nothing on other ranks. All must call."""
        state, first = optimizer.state_dict(), self.global_rank == 0
        whole_state = {
            number: {name: whole(value, keep=first) for name, value in moments.items()}
            for number, moments in state["state"].items()
        }
        groups = [{**group, "foreach": None, "fused": True} for group in state["param_groups"]]
        return {"state": whole_state, "param_groups": groups} if first else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's share of the state of each optimiser."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [item for group in optimizer.param_groups for item in group["params"]]
            state = {
                number: {
                    name: share_of(value, parameters[number]) if name != "step" else value
                    for name, value in moments.items()
                }
                for number, moments in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})
        self._one_by_one()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:  # noqa: ANN401
        """Let rank 0 write one file, as with other strategies."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ANN401
        """Map the file on every rank; each reads what it takes."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def _one_by_one(self) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["foreach"], group["fused"] = False, None


def shard(backbone: nn.Module, blocks: Iterable[nn.Module], mesh: DeviceMesh, precision: str) -> None:
    """Spread the weights of `backbone` over the ranks of `mesh`, in place, those of each block together.

    With bf16-mixed the gathered weights are bfloat16 and gradients are summed in float32: autocast's own
    casts of float32 weights would stay in memory until backward.
    """
    mixed = precision == "bf16-mixed"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if mixed else None,
        reduce_dtype=torch.float32 if mixed else None,
        cast_forward_inputs=False,
    )
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(backbone, mesh=mesh, mp_policy=policy)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Let gradients of parameters that are whole on every rank be their means over the ranks, in place."""
    grads = [item.grad for item in parameters if item.grad is not None and not isinstance(item, DTensor)]
    for dtype in dict.fromkeys(grad.dtype for grad in grads):
        alike = [grad for grad in grads if grad.dtype == dtype]
        means = mean_over_ranks(torch.cat([grad.flatten() for grad in alike]))
        for grad, mean in zip(alike, torch.split(means, [grad.numel() for grad in alike]), strict=True):
            grad.copy_(mean.view_as(grad))


def clip_gradients(parameters: Iterable[nn.Parameter], bound: float) -> Tensor:
    """Scale gradients to a norm of at most `bound`; returns the norm over all parameters of all ranks."""
    trained = list(parameters)
    grads = [item.grad for item in trained if item.grad is not None]
    shares = [grad for grad in grads if isinstance(grad, DTensor)]
    if not shares:
        total: Tensor = nn.utils.clip_grad_norm_(trained, bound)
        return total
    replicated = [grad for grad in grads if not isinstance(grad, DTensor)]
    norms = [nn.utils.get_total_norm(group) for group in (shares, replicated) if group]
    norm: Tensor = torch.stack(
        [each.full_tensor() if isinstance(each, DTensor) else each for each in norms]
    ).norm()
    factor = torch.clamp(bound / (norm + 1e-6), max=1.0)  # not a number: the host would wait for it
    for grad in grads:
        own = grad.to_local() if isinstance(grad, DTensor) else grad
        own.mul_(factor)
    return norm


def whole(value: Any, *, keep: bool) -> Any:  # noqa: ANN401
    """A tensor with the shares of all ranks in it, on the CPU; anything else as it is.

    A rank that does not `keep` it takes part and gets None: eight hosts' worth of weights fit no host.
    """
    if not isinstance(value, Tensor):
        return value
    gathered = value.full_tensor() if isinstance(value, DTensor) else value
    return gathered.detach().cpu() if keep else None


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """This rank's share of a whole tensor, cut as `like` is; `value` itself where that is whole."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    moved = value.to(like.device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)
