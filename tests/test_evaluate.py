"""Are scores what scikit-learn and a plain loop say, in the split's own order?"""

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import f1_score, matthews_corrcoef

from lib import tasks
from lib.errors import StudyError
from lib.measures.evaluate import autocast, metrics, score


@pytest.fixture
def data() -> Dataset:
    draw = np.random.default_rng(0)
    texts = [
        " ".join(f"t{n}" for n in draw.integers(5, 50, draw.integers(1, 15))) for _ in range(40)
    ]
    return Dataset.from_dict({"text": texts, "label": draw.integers(0, 2, 40).tolist()})


def test_predictions_equal_a_plain_loop_one_sentence_at_a_time(make_classifier, data, digits):
    model = make_classifier("bert", 2)
    with torch.no_grad():
        logits = [
            model(input_ids=torch.tensor([[int(word[1:]) for word in text.split()]])).logits[0]
            for text in data["text"]
        ]
        margin = torch.stack(logits).diff(dim=1).quantile(0.5)
        model.classifier.bias -= torch.stack([torch.zeros(()), margin])  # so that both occur
    plain = [int(one[1] - margin > one[0]) for one in logits]
    found = score(model, digits, data, tasks.get("sst2"), "float32")
    assert found.predictions.tolist() == plain
    assert 0 < sum(plain) < len(plain)
    assert found.score == np.mean(np.array(plain) == data["label"])


def test_regression_gives_values_and_correlations(make_classifier, data, digits):
    data = data.remove_columns("label").add_column("label", np.linspace(0, 5, 40))
    data = data.add_column("text_pair", data["text"])
    model = make_classifier("mpnet", 1)

    found = score(model, digits, data, tasks.get("stsb"), "float32")
    assert found.predictions.dtype.kind == "f"
    assert len(set(found.predictions.tolist())) > 30
    assert found.scores["pearson"] == pytest.approx(
        np.corrcoef(found.predictions, found.labels)[0, 1], abs=1e-6
    )


def test_metrics_are_scikit_learns_headline_first():
    labels, p = np.array([0, 1, 1, 0, 1]), np.array([0, 1, 0, 1, 1])
    cola, mrpc = metrics(tasks.get("cola"), p, labels), metrics(tasks.get("mrpc"), p, labels)
    assert next(iter(cola.values())) == pytest.approx(matthews_corrcoef(labels, p))
    assert next(iter(mrpc.values())) == pytest.approx(f1_score(labels, p))
    assert mrpc["accuracy"] == 0.6


def test_a_constant_prediction_has_no_correlation():
    found = metrics(tasks.get("stsb"), np.ones(4), np.arange(4.0))
    assert found == {"spearman": 0.0, "pearson": 0.0}


def test_the_model_keeps_its_mode(make_classifier, data, digits):
    model = make_classifier("bert", 2).train()
    score(model, digits, data, tasks.get("sst2"), "float32")
    assert model.training


def test_what_cannot_be_scored_is_refused(make_classifier, data, digits):
    model, task = make_classifier("bert", 2), tasks.get("sst2")
    with pytest.raises(StudyError, match="empty"):
        score(model, digits, data.select([]), task)
    with pytest.raises(StudyError, match="precision must be one of float32, bfloat16; got 'int4'"):
        autocast(torch.device("cpu"), "int4")
    with torch.no_grad():
        model.classifier.weight.fill_(float("inf"))
    with pytest.raises(StudyError, match="not finite"):
        score(model, digits, data, task, "float32")


def test_weights_that_move_inside_the_context_are_cast_anew():
    """Autocast would otherwise go on with the bfloat16 copy of the weights before the step."""
    linear, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with autocast(torch.device("cpu"), "bfloat16"):
        before = linear(x)
        with torch.no_grad():
            linear.weight.add_(1.0)
        moved = (linear(x) - before).detach().float()
    assert moved.mean() == pytest.approx(4.0, abs=0.1)
