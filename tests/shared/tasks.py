"""Tasks by short calls."""

from embedtrain.evaluation.catalogue.tasks import find_tasks


def local_tasks(root, names=None, splits=()):
    """The local data sets under a root, all or those named, on their usual split or on these."""
    if splits:
        return find_tasks([f"{name}:{split}" for name in names for split in splits], root)
    return find_tasks(names or ["local"], root)


def official_tasks(names):
    return find_tasks(names)
