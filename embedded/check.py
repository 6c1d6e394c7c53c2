"""Scores answers by rule: check.py heldout.jsonl answers.jsonl. The answers have the fields "id" and "response"."""
import json
import sys
from collections import defaultdict


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def sentences(text):
    return [f"{part.rstrip('.')}." for part in text.split(". ")]


def in_subset(text, check):
    parts = sentences(text) if check["separator"] == " " else text.rstrip(".").split(check["separator"])
    return len(parts) == len(set(parts)) == check["count"] and set(parts) <= set(check["allowed"])


def correct(response, check):
    text = response.strip()
    if check["rule"] == "json":
        return parsed(text) == check["value"]
    if check["rule"] == "subset":
        return in_subset(text, check)
    return text in check["accept"]


def read(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def scores(records, responses):
    """Share of correct answers, overall and for each task and format; a missing answer is wrong."""
    groups = defaultdict(list)
    for record in records:
        check = record["check"]
        hit = correct(responses.get(record["id"], ""), check)
        for name in ("all", f"task {check['task']}", f"format {check['format']}"):
            groups[name].append(hit)
    return {name: sum(hits) / len(hits) for name, hits in sorted(groups.items())}


def main():
    responses = {answer["id"]: answer["response"] for answer in read(sys.argv[2])}
    for name, share in scores(read(sys.argv[1]), responses).items():
        print(f"{share:7.1%}  {name}")


if __name__ == "__main__":
    main()
