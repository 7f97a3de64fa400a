"""Does training learn, repeat itself, leave its input alone, and keep promised zeros?"""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

from lib import devices
from lib.errors import StudyError
from lib.models.compact import dense
from lib.training import checkpoints, teachers, train
from lib.training.distil import Distil
from lib.training.train import Recipe, finetune


@pytest.fixture
def data() -> Dataset:
    """Sentences whose first token decides the label."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (96,), generator=draw).tolist()
    lengths = torch.randint(3, 9, (96,), generator=draw).tolist()
    ids = [
        [2 + label, *torch.randint(5, 50, (length - 1,), generator=draw).tolist()]
        for label, length in zip(labels, lengths, strict=True)
    ]
    return Dataset.from_dict({"input_ids": ids, "label": labels, "length": lengths})


RECIPE = Recipe(steps=30, batch=16, lr=3e-3, precision="float32")


def accuracy(model, data) -> float:
    with torch.no_grad():
        guesses = [
            int(model(input_ids=torch.tensor([ids])).logits.argmax()) for ids in data["input_ids"]
        ]
    return sum(g == w for g, w in zip(guesses, data["label"], strict=True)) / len(guesses)


def test_it_learns_what_can_be_learned(make_classifier, data, digits):
    model = make_classifier("bert", 2)
    trained = finetune(model, digits, data, RECIPE, seed=0)
    assert accuracy(trained.model, data) > 0.9 > accuracy(model, data)
    assert trained.steps == 30
    assert trained.losses[-1] < trained.losses[0]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_it_runs_where_everything_else_does(kind, make_classifier, data, digits, monkeypatch):
    """Accelerate left alone would take a Mac's GPU, where nothing else is computed."""
    asked = []

    def accelerator(**options):
        asked.append(options)
        return Accelerator(cpu=True)

    monkeypatch.setattr(train, "Accelerator", accelerator)
    monkeypatch.setattr(devices, "device", lambda: torch.device(kind))
    finetune(make_classifier("bert", 2), digits, data, replace(RECIPE, steps=1), seed=0)
    assert asked == [{"cpu": kind == "cpu"}]


def test_the_input_model_comes_back_unchanged(make_classifier, data, digits):
    model = make_classifier("bert", 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finetune(model, digits, data, RECIPE, seed=0)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_a_seed_gives_the_same_model_and_another_seed_another(make_classifier, data, digits):
    model = make_classifier("mpnet", 2)
    once, twice, other = (
        finetune(model, digits, data, RECIPE, seed=s).model.classifier.dense.weight
        for s in (0, 0, 1)
    )
    assert torch.equal(once, twice)
    assert not torch.equal(once, other)


def test_the_best_selected_state_is_kept(make_classifier, data, digits):
    """The selection score falls, so the first of the three states must come back."""
    states, scores = [], iter([0.9, 0.5, 0.1])

    def select(model):
        states.append(model.classifier.weight.clone())
        return next(scores)

    recipe = Recipe(steps=9, batch=16, lr=3e-3, precision="float32", selections=3)
    trained = finetune(make_classifier("bert", 2), digits, data, recipe, 0, select=select)
    assert trained.selection == [(3, 0.9), (6, 0.5), (9, 0.1)]
    assert torch.equal(trained.model.classifier.weight, states[0])


def test_zeros_stay_zero_only_where_promised(make_classifier, data, digits):
    model = make_classifier("bert", 2)
    weight = model.bert.encoder.layer[1].intermediate.dense.weight
    with torch.no_grad():
        weight[weight.abs() < weight.abs().median()] = 0
    kept, freed = (
        finetune(model, digits, data, RECIPE, 0, keep_zeros=keep).model for keep in (True, False)
    )
    after = kept.bert.encoder.layer[1].intermediate.dense.weight
    assert torch.equal(after == 0, weight == 0)
    assert not torch.equal(after, weight)
    assert (freed.bert.encoder.layer[1].intermediate.dense.weight == 0).sum() == 0
    assert kept.state_dict().keys() == model.state_dict().keys()


def test_a_diverging_run_stops_with_one_line(make_classifier, data, digits):
    model = make_classifier("bert", 2)
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(StudyError, match="loss is nan at step 1"):
        finetune(model, digits, data, RECIPE, seed=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either epochs or steps"),
        ({"epochs": 1, "steps": 5}, "either epochs or steps"),
        ({"steps": 5, "lr": -1}, "above 0"),
        ({"steps": 5, "learning_rate": 1e-5}, "unknown training option 'learning_rate'"),
    ],
)
def test_a_wrong_recipe_is_refused(options, says):
    with pytest.raises(StudyError, match=says):
        Recipe.of(options)


def test_epochs_count_steps():
    assert Recipe(epochs=1).total(67) == 3
    assert Recipe(epochs=0.5, batch=10).total(100) == 5
    assert Recipe(steps=7).total(10**6) == 7


class Killed(Exception):
    pass


def killed_at(count):
    """A selection score that falls, and ends the training when asked for the `count`-th time."""
    asked = []

    def select(model):
        asked.append(1)
        if len(asked) == count:
            raise Killed
        return float(model.classifier.weight.detach().abs().sum())

    return select


@pytest.mark.parametrize("distilled", [False, True])
def test_a_killed_training_goes_on_to_the_same_result(
    make_classifier, data, digits, tmp_path, monkeypatch, distilled
):
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    model = make_classifier("bert", 2)
    recipe = dict(steps=12, batch=16, lr=3e-3, precision="float32", selections=6)
    recipe = Recipe(**recipe, distil=Distil() if distilled else None)
    file, more = tmp_path / "finetune.safetensors", {"teacher": make_classifier("bert", 2)}
    straight = finetune(model, digits, data, recipe, 0, killed_at(99), **more)
    with pytest.raises(Killed):
        finetune(model, digits, data, recipe, 0, killed_at(4), **more, checkpoint=file)
    for _ in range(2):  # the second finds it done
        again = finetune(model, digits, data, recipe, 0, killed_at(99), **more, checkpoint=file)
        assert (again.losses, again.selection) == (straight.losses, straight.selection)
        assert again.before > 0
        torch.testing.assert_close(
            again.model.state_dict(), straight.model.state_dict(), rtol=0, atol=0
        )
    with pytest.raises(StudyError, match="other hyperparameters"):
        finetune(model, digits, data, recipe, 1, killed_at(99), **more, checkpoint=file)
    for other in (model, *([more["teacher"]] if distilled else [])):
        with torch.no_grad():
            other.classifier.bias += 1
        with pytest.raises(StudyError, match="other hyperparameters"):
            finetune(model, digits, data, recipe, 0, killed_at(99), **more, checkpoint=file)
        with torch.no_grad():
            other.classifier.bias -= 1


def test_a_loss_that_turns_nan_leaves_the_last_checkpoint(
    make_classifier, data, digits, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    model, file = make_classifier("bert", 2), tmp_path / "finetune.safetensors"
    recipe = Recipe(steps=12, batch=16, lr=3e-3, precision="float32")
    straight = finetune(model, digits, data, recipe, 0)
    real, count = train._loss, iter(range(99))
    with monkeypatch.context() as broken:
        broken.setattr(
            train, "_loss", lambda *a: real(*a) * (float("nan") if next(count) == 7 else 1)
        )
        with pytest.raises(StudyError, match="the loss is nan at step 8"):
            finetune(model, digits, data, recipe, 0, checkpoint=file)
    again = finetune(model, digits, data, recipe, 0, checkpoint=file)
    assert again.before > 0
    torch.testing.assert_close(again.model.state_dict(), straight.model.state_dict())


def test_a_distilled_training_follows_its_teacher_not_the_labels(make_classifier, data, digits):
    teacher = finetune(make_classifier("bert", 2), digits, data, RECIPE, seed=0).model
    wrong = data.remove_columns("label").add_column("label", [1 - x for x in data["label"]])
    recipe = Recipe(steps=40, batch=16, lr=3e-3, precision="float32", distil=Distil(1.0, 1.0))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = dense(make_classifier("bert", 2))
    trained = finetune(student, digits, wrong, recipe, 0, teacher=teacher)
    assert accuracy(trained.model, data) > 0.9
    assert trained.losses[-1] < trained.losses[0]
    torch.testing.assert_close(dict(teacher.state_dict()), before, rtol=0, atol=0)


def test_a_recipe_that_distils_wants_a_teacher(make_classifier, data, digits):
    recipe = Recipe(steps=2, distil=Distil())
    with pytest.raises(StudyError, match="wanted a teacher, as the recipe says distil"):
        finetune(make_classifier("bert", 2), digits, data, recipe, 0)


def test_a_recipe_without_distillation_is_recorded_as_before():
    """Teachers on disk are found by a digest of this."""
    options = {"steps": 5, "lr": 1e-3}
    assert Recipe.of(options).record() == {
        "epochs": None,
        "steps": 5,
        "batch": 32,
        "lr": 1e-3,
        "warmup": 0.06,
        "weight_decay": 0.01,
        "clip": 1.0,
        "precision": "bfloat16",
        "selections": 0,
    }
    distil = {"prediction": 0.1, "layers": 0.9, "matching": "unordered"}
    assert Recipe.of(options | {"distil": distil}).record()["distil"] == distil


def test_a_tokenizer_that_is_cut_off_is_refused_in_one_line(tmp_path, digits):
    digits.save_pretrained(tmp_path)
    assert teachers._tokenizer(tmp_path)("1").input_ids
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(StudyError, match="cannot read the tokenizer") as refused:
        teachers._tokenizer(tmp_path)
    assert "\n" not in str(refused.value)
