"""Checks that a dataset answers every line of its input: usage: check_dataset.py INPUT.jsonl OUT.jsonl"""
import json
import math
import sys
from pathlib import Path

prompts, records = ([json.loads(line) for line in Path(p).read_text().splitlines()] for p in sys.argv[1:3])
manifest = json.loads(Path(sys.argv[2]).with_name(Path(sys.argv[2]).name + "-manifest").read_text())

FIELDS = ["id", "is_completed", "instruction", "response", "res_metadata", "score"]
AFTER = ["finish_reason", "prompt_tokens", "completion_tokens"]
METADATA = ["temperature", "top_p", "max_tokens", "contrastive_decoding", "alpha", "beta", "expert_model_id", "amateur_model_id"]

assert sorted(r["id"] for r in records) == sorted(str(p["id"]) for p in prompts), "the ids are not the input's"
instructions = {str(p["id"]): p["instruction"] for p in prompts}
for record in records:
    assert list(record)[: len(FIELDS)] == FIELDS, f"fields: {list(record)}"
    assert list(record["res_metadata"]) == METADATA, f"metadata: {list(record['res_metadata'])}"
    assert record["instruction"] == instructions[record["id"]]
    assert record["score"] and all(math.isfinite(s) and s <= 0 for s in record["score"])
    assert list(record)[len(FIELDS) :][: len(AFTER)] == AFTER, f"fields: {list(record)}"
    assert record["finish_reason"] == ("stop" if record["is_completed"] else "length")
    assert record["prompt_tokens"] > 0 and record["completion_tokens"] == len(record["score"])
    assert "error" not in record
assert sum(r["is_completed"] and bool(r["response"].strip()) for r in records) >= len(records) / 2, "few answers are complete"
assert isinstance(manifest["seed"], int), "the drawn seed is not recorded"
print(f"{len(records)} passed, 0 failed")
