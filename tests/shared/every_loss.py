"""Every loss and distillation of conf/, with what it cannot do without; new ones are among them."""

from embedtrain.settings.component import Component
from embedtrain.settings.options import option
from embedtrain.settings.places import config_dir

LOSSES = sorted(path.stem for path in config_dir("conf").glob("loss/*.yaml"))
DISTILLS = sorted(path.stem for path in config_dir("conf").glob("distill/*.yaml") if path.stem != "none")
PARTS = [*LOSSES, *(f"infonce + {name}" for name in DISTILLS)]
TERM = "embedtrain.objective.losses.terms.Term"
TERMS = [
    {"_target_": TERM, "loss": {"_target_": "embedtrain.objective.losses.contrastive.InfoNCE"}},
    {
        "_target_": TERM,
        "loss": {"_target_": "embedtrain.objective.losses.scored.CoSENT"},
        "weight": 0.5,
        "tasks": ["one"],
    },
]


def part(group, name, *, width, **extra):
    """The loss or distillation of an option, for embeddings of a width."""
    needed = {"espresso": {"compress_dim": width // 4}, "weighted_sum": {"terms": TERMS}}
    return Component.of(option(group, name) | needed.get(name, {}), group).build(width=width, **extra)


def parts(name, **extra):
    """Loss and distillation of one of `PARTS`."""
    loss, _, distill = name.partition(" + ")
    return part("loss", loss, **extra), part("distill", distill, **extra) if distill else None
