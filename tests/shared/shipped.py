"""What sentence-transformers makes of the folders that an export writes."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer


def shipped(folder, texts, role="document", **settings):
    """Its embeddings of texts, with the prompt of their role unless `settings` name another."""
    own = any(Path(folder).glob("*.py"))  # code that no other folder needs leave for
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=own)
    encode = {"query": model.encode_query, "document": model.encode_document, None: model.encode}[role]
    return encode(list(texts), convert_to_tensor=True, show_progress_bar=False, **settings)


def assert_shipped(folder, encoder, texts, sub, roles=("query", "document"), atol=1e-5):
    """It gives what the encoder gives at this size, for each role."""
    for role in roles:
        expected = encoder.encode(texts, (sub.layer,), role).at(sub)
        torch.testing.assert_close(shipped(folder, texts, role).float(), expected, rtol=0, atol=atol)
