"""Offline folders of wandb, as wandb itself reads them: LevelDB's log of its own protobuf records."""

import json
import struct

BLOCK, HEAD = 32768, 7  # bytes of a block, and of the head of a record


def records(folder):
    """Every record of the one .wandb file of a folder, decoded by wandb's own class."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    for data in _logged(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        yield record


def _logged(data):
    assert data[:4] == b":W&B", "no file of wandb"
    place, parts = HEAD, []
    while place + HEAD <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEAD:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if not kind:  # nothing was written here
            break
        parts.append(data[place + HEAD : place + HEAD + length])
        place += HEAD + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def items(pairs):
    """key -> value of wandb's pairs; a key in a key is written a.b."""
    return {".".join(pair.nested_key) or pair.key: json.loads(pair.value_json) for pair in pairs}


class Offline:
    """What some folders of one run say: its id, config, lines of history, summary, artifacts."""

    def __init__(self, folders):
        self.ids, self.config, self.history, self.summary, self.artifacts = set(), {}, [], {}, []
        for record in (record for folder in folders for record in records(folder)):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.ids.add(record.run.run_id)
                self.config |= items(record.run.config.update)
            elif kind == "config":
                self.config |= items(record.config.update)
            elif kind == "history":
                self.history.append(items(record.history.item))
            elif kind == "summary":
                self.summary |= items(record.summary.update)
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
                self.artifacts.append(record.request.log_artifact.artifact)
