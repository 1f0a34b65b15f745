"""What each command must be given."""

NEEDED = {  # words without which a command is refused
    "train": ["name=x", "data.train=y"],
    "doctor": ["name=x", "data.train=y"],
    "evaluate": ["tasks=[x]"],
    "compare": ["runs=[x]"],
    "report": ["runs=[x]"],
    "export": ["model=m", "out=o"],
    "merge": ["runs=[x,y]"],
    "pairs": ["source=s", "out=o.jsonl"],
    "rotate": ["model=m", "source=rows.jsonl", "out=o"],
    "mine": ["source=s", "out=o.jsonl", "teacher=minilm", "selection=naive"],
}
