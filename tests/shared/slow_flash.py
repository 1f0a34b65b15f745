"""A stand-in for the kernel of flash attention."""

import torch


def slow_flash(query, key, value, attention_mask, *, is_causal, softmax_scale, **given):
    """What flash_attn computes, in one matrix of all tokens: (B, S, heads, width)."""
    rows, columns = query.shape[:2]
    window, borders = given["sliding_window"], given.get("cu_seq_lens_q")
    if borders is None:
        text = torch.arange(rows).repeat_interleave(columns)
        real = (
            torch.ones(rows * columns).bool() if attention_mask is None else attention_mask.flatten().bool()
        )
    else:
        assert given["max_length_k"] == borders.diff().max()
        assert torch.equal(borders, given["cu_seq_lens_k"])
        text = torch.bucketize(torch.arange(rows * columns), borders, right=True)
        real = torch.ones(rows * columns).bool()
    place = torch.arange(rows * columns)
    distance = place.unsqueeze(1) - place
    seen = (text.unsqueeze(1) == text) & (real | (distance == 0))
    if is_causal:
        seen &= distance >= 0
    if window is not None:
        seen &= distance.abs() < window
    query, key, value = (part.flatten(0, 1).transpose(0, 1) for part in (query, key, value))
    groups = len(query) // len(key)
    out = torch.nn.functional.scaled_dot_product_attention(
        query,
        key.repeat_interleave(groups, 0),
        value.repeat_interleave(groups, 0),
        attn_mask=seen,
        scale=softmax_scale,
    )
    return out.transpose(0, 1).unflatten(0, (rows, columns))
