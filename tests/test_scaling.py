"""The arithmetic of docs/scaling.md."""

from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs/scaling.md").read_text("utf-8")


def test_the_example_follows_from_the_formulas():
    ranks, queries, hard, layers, width, parameters = 8, 128, 4, 3, 768, 110e6
    candidates = ranks * queries * (1 + hard)
    shown = {
        "`gather=gradient` or `values`": f"{candidates:,}",
        "`gather=none`": f"{queries * (1 + hard)}",
        "weights, gradients and AdamW": f"{16 * parameters / 1e9:.2f} GB",
        "similarities of a chunk": f"{1024 * candidates * 4 / 1e6:.0f} MB",
        "embeddings received": f"{layers * width * 4 * ranks * queries * (2 + hard) / 1e6:.1f} MB",
        "gradients sent": f"{2 * (ranks - 1) / ranks * parameters * 4 / 1e6:.0f} MB",
    }
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    for what, value in shown.items():
        (row,) = [row for row in rows if what in row]
        assert f" {value}" in row.split("|")[3], what
