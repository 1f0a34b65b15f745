"""Shell completion beyond Hydra's: recipes, and the options of a folder given by --config-dir."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedtrain.settings.places import recipe_names

FLAGS = {"--shell-completion", "-sc"}


def recipes_for(words: Sequence[str], environment: Mapping[str, str]) -> list[str] | None:
    """What completes a `recipe=` that a shell asks about; None where it asks about something else."""
    last = environment.get("COMP_LINE", "").rpartition(" ")[2]
    if not FLAGS.intersection(words) or not last.startswith("recipe="):
        return None
    names = [f"recipe={name}" for name in recipe_names()]
    return [name for name in names if name.startswith(last)]


def with_own_folder(words: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], str | None]:
    """The words and the line to complete, `--config-dir` moved from the line, where Hydra overlooks it."""
    line = environment.get("COMP_LINE")
    if not FLAGS.intersection(words) or line is None or "--config-dir" not in line:
        return list(words), line
    asked = line.split(" ")
    place = asked.index("--config-dir")
    return [*asked[place : place + 2], *words], " ".join([*asked[:place], *asked[place + 2 :]])
