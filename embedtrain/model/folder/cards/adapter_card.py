"""The README.md of a folder of adapters: how to open it here, and in peft alone."""

from __future__ import annotations

from collections.abc import Mapping

from embedtrain.escaping import markdown, python_string
from embedtrain.model.folder.contract import Contract

# Poolings of a few lines: states (M, T, H) and mask (M, T) to vectors.
POOLED = {
    "mean": "vectors = (states * mask).sum(1) / mask.sum(1)",
    "cls": "vectors = states[range(len(states)), batch['attention_mask'].argmax(1)]",
    "eos": "vectors = states[range(len(states)), (mask[..., 0].cumsum(1)).argmax(1)]",
    "max": "vectors = states.masked_fill(mask == 0, float('-inf')).amax(1)",
}


def adapter_card(
    contract: Contract, name: str, *, loader: str, switch: Mapping[str, bool], hidden_size: int
) -> str:
    """The text of README.md.

    Args:
        contract: of the adapter, base included.
        name: of the folder.
        loader: class of transformers that has the backbone.
        switch: settings of the base's config that its attention needs.
        hidden_size: width of a state.
    """
    assert contract.base is not None
    base = contract.base.source
    trust = "" if contract.code is None else ", trust_remote_code=True"
    return "\n".join(
        [
            f"# {markdown(name)}: LoRA adapters",
            "",
            f"They belong to {markdown(base)}, without which the folder is no model. `embedtrain.json` has "
            "the hash of its weights and all settings that decide an embedding. `model/` has them merged.",
            "",
            "```python",
            "import embedtrain",
            "",
            f'model = embedtrain.load({python_string(name)}{trust})  # base="..." where the base has moved',
            "```",
            "",
            *_alone(contract, base, name, loader, switch, hidden_size),
            "",
        ]
    )


def _alone(
    contract: Contract, base: str, name: str, loader: str, switch: Mapping[str, bool], hidden_size: int
) -> list[str]:
    before = contract.prompts.get("document", "")
    trust = "" if contract.code is None else ", trust_remote_code=True"
    texts = ", ".join(python_string(before + text) for text in ("first text", "second text"))
    code = [
        "import torch",
        "from peft import PeftModel",
        f"from transformers import AutoConfig, AutoTokenizer, {loader}",
        "",
        f"base, adapter = {python_string(base)}, {python_string(name)}",
        f"config = AutoConfig.from_pretrained(base{trust})",
        *(f"config.{key} = {value}" for key, value in switch.items()),
        f"base = {loader}.from_pretrained(base, config=config{trust})",
        "model = PeftModel.from_pretrained(base, adapter).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(adapter)",
        "",
        f"texts = [{texts}]",
        "batch = tokenizer(texts, padding=True, truncation=True, return_tensors='pt')",
        "with torch.no_grad():",
        "    states = model(**batch).last_hidden_state.float()",
    ]
    pooled = POOLED.get(contract.pooling)
    whole = pooled is not None and (contract.pool_prompt or not contract.prompts)
    if pooled is not None and whole:
        code += [
            "mask = batch['attention_mask'].unsqueeze(-1)",
            pooled,
            *([f"vectors = vectors[:, :{contract.width}]"] if contract.width < hidden_size else []),
            *(["vectors = torch.nn.functional.normalize(vectors, dim=-1)"] if contract.normalize else []),
        ]
    lines = ["In peft alone:", ""]
    if switch:
        said = ", ".join(f"`{key}`" for key in switch)
        lines = [
            f"In peft alone, with transformers 5.2 or later. Set {said}: without it the base is causal, in "
            "silence, and gives other vectors. `AutoPeftModel` leaves it out.",
            "",
        ]
    reason = [] if whole else [
        "",
        f"These are the states of the tokens. The pooling ({markdown(contract.pooling)}) and what it leaves "
        "out need `embedtrain.load`, or `model/`.",
    ]  # fmt: skip
    return [*lines, "```python", *code, "```", *reason]
