"""The README.md that travels with a saved model."""

from __future__ import annotations

from embedtrain.model.contract import Contract


def model_card(contract: Contract, name: str) -> str:
    """A short model card: what the model is, how to load it, which sub-models were trained."""
    unit = "unit vectors" if contract.normalize else "vectors (not normalised)"
    trained = ", ".join(f"({sub.layer}, {sub.dim})" for sub in contract.trained)
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, feature-extraction, sentence-similarity, embedtrain]",
        "---",
        "",
        f"# {name}",
        "",
        f"A text-embedding model of {contract.num_layers} transformer blocks that gives {unit} of "
        f"{contract.width} coordinates.",
        "",
        f"- Pooling: {contract.pooling}; texts longer than {contract.max_length} tokens are cut off.",
        f"- Starting model: {contract.source or 'not recorded'}.",
        f"- Trained sub-models (layer, dim): {trained or 'none recorded'}.",
        "",
        "```python",
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{name}")',
        'embeddings = model.encode(["first text", "second text"])',
        "```",
        "",
        "`embedtrain.json` holds the settings that decide an embedding.",
        "",
    ]
    return "\n".join(lines)
