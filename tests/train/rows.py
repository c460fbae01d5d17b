"""Reads metrics.jsonl without what a clock wrote."""

import json

TIMING = ("seconds", "steps_per_second")


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in TIMING} for line in lines
    ]
