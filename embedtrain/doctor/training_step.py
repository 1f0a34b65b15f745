"""One step as training takes it, without a change of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from embedtrain.doctor.patient import Look, Patient, on, paired
from embedtrain.types import Embeddings, distinct_layers


def loss_of(patient: Patient, look: Look, texts: Embeddings, guide: Tensor | None) -> Tensor:
    """The whole objective of a look's batch, a scalar with gradient."""
    links = look.batch.links
    value = patient.loss.objective(
        texts.rows(links.query), texts.rows(links.docs), paired(patient, look, guide), look.chosen
    )
    total: Tensor = value.total
    return total


def forward_and_backward(patient: Patient, look: Look) -> None:
    """Encode, loss, gradient; the gradients are dropped. In the modes that modules are in."""
    look = look._replace(batch=on(look.batch, patient.device))
    tokens, layers = look.batch.inputs, distinct_layers(look.chosen)
    guide = None
    if patient.loss.guide is not None and look.batch.guide is not None:
        guide = patient.loss.guide.embed(look.batch.guide)
    parts = (patient.encoder, patient.loss.objective)
    with patient.autocast():
        if patient.gradcache is None:
            total = loss_of(patient, look, patient.encoder(tokens, layers), guide)
        else:
            owned = [item for item in patient.loss.objective.parameters() if item.requires_grad]
            total = patient.gradcache(
                patient.encoder,
                tokens,
                layers,
                lambda texts: loss_of(patient, look, texts, guide),
                owned=owned,
                seed=lambda chunk: chunk,
                backward=torch.autograd.backward,
            )
    if total.requires_grad:
        torch.autograd.backward(total)
    for part in parts:
        part.zero_grad(set_to_none=True)
    if patient.device.type == "cuda":
        torch.cuda.synchronize(patient.device)
