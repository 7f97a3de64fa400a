"""Is evaluation at least 3 times as fast as a plain loop padded to 128 tokens?

Not collected by `make test`, since it means something on a quiet machine only. Run it with
`make test ARGS="tests/benchmark_evaluate.py -n 0 -s"`; SST-2 comes from GLUE_DIR or the hub.
"""

import statistics
import time

import pytest
import torch
from transformers import AutoTokenizer

from lib import assets, tasks
from lib.errors import StudyError
from lib.measures import evaluate
from lib.models import encoder


def test_evaluation_is_three_times_as_fast_as_a_padded_loop():
    task = tasks.get("sst2")
    try:
        dev = tasks.load("sst2", "dev")
    except StudyError as error:
        pytest.skip(str(error))
    folder = assets.encoder_folder("minilm-l6")
    model, tokenizer = encoder.load(folder, task.labels), AutoTokenizer.from_pretrained(folder)

    def ours():
        return evaluate.score(model, tokenizer, dev, task, "float32").score

    def padded_loop():
        right = 0
        with torch.no_grad():
            for start in range(0, len(dev), 32):
                rows = dev[start : start + 32]
                batch = tokenizer(
                    rows["text"],
                    padding="max_length",
                    truncation=True,
                    max_length=128,
                    return_tensors="pt",
                )
                found = model(**batch).logits.argmax(1)
                right += int((found == torch.tensor(rows["label"])).sum())
        return right / len(dev)

    seconds = {ours: [], padded_loop: []}
    scores = set()
    for _ in range(3):
        for way, samples in seconds.items():  # in turns: A B A B
            start = time.perf_counter()
            scores.add(round(way(), 2))
            samples.append(time.perf_counter() - start)
    ratio = statistics.median(seconds[padded_loop]) / statistics.median(seconds[ours])
    print(f"\n{ratio:.1f} times as fast; the same score to two digits: {sorted(scores)}")
    assert len(scores) == 1
    assert ratio >= 3
