"""Shared fixtures: a tiny GGUF file."""

from pathlib import Path

import pytest
from tiny_models import tiny_config, tiny_model
from transformers import PreTrainedModel
from transformers.convert_slow_tokenizer import bytes_to_unicode


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file (Q8_0) of a Llama, 4 layers x 32, with a tokenizer of bytes.

    The folder `plain` beside its own holds the model that it was made of.
    """
    folder = tmp_path_factory.mktemp("tiny_gguf")
    alphabet = [byte for _, byte in sorted(bytes_to_unicode().items())]
    tokens = ["<s>", "</s>", "<unk>", *alphabet, "th"]
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    model = tiny_model(tiny_config("llama", vocab_size=len(tokens), max_position_embeddings=64, **ids))
    model.save_pretrained(folder / "plain")
    (folder / "file").mkdir()
    write_gguf(folder / "file" / "tiny.Q8_0.gguf", model, tokens)
    return folder / "file" / "tiny.Q8_0.gguf"


GGUF_NAMES = {
    "embed_tokens": "token_embd", "layers": "blk", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def write_gguf(file: Path, model: PreTrainedModel, tokens: list[str]) -> None:
    """A Llama as a GGUF file: matrices in Q8_0, norms in float32, rotary pairs side by side."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 2, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    for name, value in model.state_dict().items():
        weight = value.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            halves = weight.reshape(heads, 2, config.head_dim // 2, -1)
            weight = halves.swapaxes(1, 2).reshape(weight.shape)
        short = "output_norm.weight" if name == "norm.weight" else name
        for long, word in GGUF_NAMES.items():
            short = short.replace(long, word)
        if weight.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(short, gguf.quants.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(short, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
