"""The nearest name for a word that nothing reads: our old names, those of other libraries, or the closest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

OLD_NAMES = {  # ours -> what they are now
    "contrast": "loss",
    "during": "eval_during",
    "trainer.accumulate": "trainer.accumulate_grad_batches",
    "trainer.clip_norm": "trainer.gradient_clip_val",
    "trainer.validate_every": "trainer.val_check_interval",
    "trainer.log_every": "trainer.log_every_n_steps",
    "trainer.checkpoint_every": "trainer.checkpoint_every_n_steps",
    "trainer.keep_last": "trainer.save_total_limit",
    "data.max_steps": "trainer.max_steps",
    "data.epochs": "trainer.max_epochs",
    "data.by_length": "data.group_by_length",
    "backbone.pool_prompt": "backbone.include_prompt",
    "gradcache.rows": "gradcache.mini_batch_size",
    "scale": "temperature=1/scale",
    "teacher.device": "device",
}
_GROUPS = {  # settings whose names are the same elsewhere, without their group
    "backbone": "max_length prompts include_prompt gradient_checkpointing",
    "data": "batch_size num_workers group_by_length",
    "gradcache": "mini_batch_size",
    "loss": "temperature",
    "optim": "lr weight_decay",
    "trainer": "accelerator accumulate_grad_batches devices gradient_clip_val max_epochs max_steps num_nodes "
    "precision save_total_limit val_check_interval",
}
ELSEWHERE = {  # names of sentence-transformers, transformers and Lightning -> what does it here
    **{name: f"{group}.{name}" for group, names in _GROUPS.items() for name in names.split()},
    "per_device_train_batch_size": "data.batch_size, which counts the rows of all devices",
    "per_device_eval_batch_size": "data.batch_size",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "learning_rate": "optim.lr",
    "optimizer": "optim",
    "adam_beta1": "optim.betas",
    "adam_beta2": "optim.betas",
    "adam_epsilon": "optim.eps",
    "lr_scheduler_type": "optim.schedule",
    "warmup_ratio": "optim.warmup",
    "warmup_steps": "optim.warmup",
    "num_train_epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "epochs": "trainer.max_epochs",
    "max_grad_norm": "trainer.gradient_clip_val",
    "logging_steps": "trainer.log_every_n_steps",
    "save_steps": "trainer.checkpoint_every_n_steps",
    "every_n_train_steps": "trainer.checkpoint_every_n_steps",
    "save_top_k": "trainer.save_total_limit",
    "eval_steps": "trainer.val_check_interval",
    "eval_strategy": "trainer.val_check_interval",
    "bf16": "trainer.precision=bf16-mixed",
    "fp16": "trainer.precision=16-mixed",
    "strategy": "trainer=ddp or trainer=fsdp",
    "fsdp": "trainer=fsdp",
    "output_dir": "output_root and name",
    "run_name": "name",
    "overwrite_output_dir": "overwrite",
    "report_to": "logger",
    "load_best_model_at_end": "final_weights=best",
    "metric_for_best_model": "eval_during.monitor",
    "dataloader_num_workers": "data.num_workers",
    "batch_sampler": "data.batches",
    "multi_dataset_batch_sampler": "data.sampling",
    "train_dataset": "data.train",
    "eval_dataset": "data.validation",
    "data_root": "evaluation.data_root",
    "model_name_or_path": "backbone.path",
    "max_seq_length": "backbone.max_length",
    "pooling_mode": "pooling",
    "pooling_mode_mean_tokens": "pooling=mean",
    "pooling_mode_cls_token": "pooling=cls",
    "matryoshka_dims": "plan.dims",
    "loss=MultipleNegativesRankingLoss": "loss=infonce",
    "loss=MultipleNegativesSymmetricRankingLoss": "loss=infonce_symmetric",
    "loss=CachedMultipleNegativesRankingLoss": "loss=infonce gradcache=chunks",
    "loss=CachedMultipleNegativesSymmetricRankingLoss": "loss=infonce_symmetric gradcache=chunks",
    "loss=GISTEmbedLoss": "loss=gist negatives=gist guide=minilm",
    "loss=CachedGISTEmbedLoss": "loss=gist negatives=gist guide=minilm gradcache=chunks",
    "loss=CoSENTLoss": "loss=cosent",
    "loss=AnglELoss": "loss=angle_rank",
    "loss=TripletLoss": "loss=triplet",
    "loss=MarginMSELoss": "loss=margin_mse",
    "loss=DistillKLDivLoss": "loss=teacher_kl",
    "loss=GlobalOrthogonalRegularizationLoss": "loss=gor",
    "loss=MatryoshkaLoss": "plan=dims",
    "loss=Matryoshka2dLoss": "plan=random2d distill=layer_kl",
    "loss=AdaptiveLayerLoss": "plan=random2d distill=layer_kl",
    "loss=MSELoss": "distill=embedding",
}


def nearest(word: str, known: Sequence[str], path: str | None = None) -> str:
    """'; it is now X', '; here it is X' or '; did you mean X?', or a full stop.

    Args:
        word: that nothing reads.
        known: words that could have been meant.
        path: with its place, as `trainer.accumulate` or `loss=CoSENTLoss`.
    """
    for name in dict.fromkeys((path or word, word)):
        if name in OLD_NAMES:
            return f"; it is now '{OLD_NAMES[name]}'."
        cure = ELSEWHERE.get(name)
        if cure is not None and ({".", "="} & set(path or "") or re.split("[.= ,]", cure)[0] in known):
            return f"; here it is '{cure}'."
    if (last := (path or "").rpartition(".")[2]) != word and last in known:
        return f"; here it is '{last}'."
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    parents = path.removesuffix(word) if path and path.endswith(f".{word}") else ""  # as it is typed
    return f"; did you mean '{parents}{close[0]}'?" if close else "."
