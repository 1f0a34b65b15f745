"""Tasks, sweeps, cells and mteb's own scores by short calls."""

import mteb

from embedtrain.evaluation.catalogue.tasks import find_tasks
from embedtrain.evaluation.sweeping.adapter import AS_CUT, ServedCell, model_meta
from embedtrain.evaluation.sweeping.sweep import sweep
from embedtrain.evaluation.vectors.bank import GridBank


def local_tasks(root, names=None, splits=()):
    """The local data sets under a root, all or those named, on their usual split or on these."""
    if splits:
        return find_tasks([f"{name}:{split}" for name in names for split in splits], root)
    return find_tasks(names or ["local"], root)


def official_tasks(names):
    return find_tasks(names)


def swept(encoder, tasks, cells, folder, **changes):
    """The scores of a sweep; `tasks` may be a root, all or some (`names`) of whose data sets are tasks."""
    names = changes.pop("names", None)
    tasks = tasks if isinstance(tasks, list) else local_tasks(tasks, names)
    return sweep(
        encoder, tasks, cells, folder=folder, **{"run": "mine", "step": 0, "revision": "w"} | changes
    )


def served(encoder, cell, layers=None, serving=AS_CUT):
    """The cell as mteb is given it."""
    size = {"num_layers": encoder.num_layers, "width": encoder.width}
    meta = model_meta(cell, serving, **size, run="mine", revision="w")
    return ServedCell(GridBank(encoder, layers or [cell.layer], lambda texts: None), cell, meta, serving)


def mteb_scores(model, task, cache=None):
    """What mteb says of its one split: metric -> value."""
    result = mteb.evaluate(model, task, cache=cache, co2_tracker=False, show_progress_bar=False)
    (split,) = result.task_results[0].scores.values()
    return split[0]
