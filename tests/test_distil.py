"""Does a student learn the right thing from the right layer?"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lib.errors import StudyError
from lib.models import encoder
from lib.models.compact import compact, dense
from lib.models.masks import Masks
from lib.training import distil
from lib.training.distil import Distil, Teaching, depths, distances, match


@pytest.mark.parametrize(
    ("layers", "taught"), [(12, [2, 5, 8, 11]), (6, [1, 2, 4, 5]), (3, [0, 1, 2]), (1, [0])]
)
def test_one_rule_for_any_depth(layers, taught):
    assert depths(layers) == taught


def test_answers_are_compared_softly():
    student, teacher = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 2.0]])
    p, q = (F.softmax(x / 2, dim=1) for x in (teacher, student))
    expected = 4 * (p * (p / q).log()).sum()
    torch.testing.assert_close(distil.prediction(student, teacher), expected)
    assert float(distil.prediction(teacher, teacher)) == pytest.approx(0, abs=1e-7)


def test_a_regression_learns_numbers():
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    assert float(distil.prediction(student, teacher, regression=True)) == 4.5
    assert float(distil.prediction(student, teacher)) == 0  # why it must be told


FOUND = torch.tensor(  # of four taught layers (rows) from the layers 0, 2, 3, 5 that are left
    [[0.1, 0.2, 0.3, 0.4], [0.1, 0.9, 0.5, 0.7], [0.9, 0.1, 0.2, 0.05], [0.9, 0.8, 0.1, 0.2]]
)


def test_matching_by_hand():
    there = [0, 2, 3, 5]
    assert match(FOUND, there, "unordered") == [(0, 0), (1, 0), (2, 5), (3, 3)]
    # top-down: 3 -> layer 3, 2 -> layer 2 (below it), 1 -> layer 0, and none is left for 0
    assert match(FOUND, there, "ordered") == [(3, 3), (2, 2), (1, 0)]
    assert match(FOUND[:, :1], [4], "ordered") == [(3, 4)]


def test_distances_are_mean_squared_errors():
    teacher, student = torch.randn(4, 7, 5), torch.randn(3, 7, 5)
    found = distances(teacher, student)
    for i in range(4):
        for j in range(3):
            torch.testing.assert_close(found[i, j], F.mse_loss(teacher[i], student[j]))


def states(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    said = model(**inputs, output_hidden_states=True)
    return said.logits, said.hidden_states


@pytest.mark.parametrize("matching", ["ordered", "unordered", "fixed"])
def test_a_copy_of_the_teacher_has_nothing_to_learn(model, batch, matching):
    teaching = Teaching(model, model, Distil(matching=matching))
    loss, parts = teaching(batch, *states(model, batch), teaching.left)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert set(parts) == {"prediction", "layers"}


def test_the_loss_by_hand_and_padding_has_no_part_in_it(bert, batch):
    student = deepcopy(bert)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    teaching = Teaching(bert, student, Distil(0.3, 0.7, "fixed"))
    logits, own = states(student, batch)
    _, theirs = states(bert, batch)
    real = batch["attention_mask"].bool()
    layers = sum(F.mse_loss(s[real], t[real]) for s, t in zip(own[1:], theirs[1:], strict=True))
    answers = distil.prediction(logits, bert(**batch).logits)
    loss, parts = teaching(batch, logits, own, [0, 1, 2])
    torch.testing.assert_close(loss, 0.3 * answers + 0.7 * layers)
    torch.testing.assert_close(torch.tensor(parts["layers"]), layers.detach())
    spoiled = [s.masked_fill(~real[..., None], 1e6) for s in own]
    again, _ = teaching(batch, logits, spoiled, [0, 1, 2])
    torch.testing.assert_close(loss, again)


def test_gradients_reach_the_student_and_the_bridge_alone(bert, batch):
    student = dense(bert).train()
    teaching = Teaching(bert, student, Distil())
    loss, _ = teaching(batch, *states(student, batch), teaching.left)
    loss.backward()
    assert encoder.layers(student)[0].up.weight.grad.abs().sum() > 0
    assert teaching.bridge.grad.abs().sum() > 0
    assert all(p.grad is None for p in [*bert.parameters(), *teaching.teacher.parameters()])


def narrow(model):
    """Two layers left of three, and 20 hidden dims of 24."""
    masks = Masks.dense(model)
    hidden, each = torch.ones(24), torch.tensor([1.0, 0.0, 1.0])
    hidden[:4] = 0
    small = compact(model, replace(masks, mha=each, ffn=each, hidden=hidden))
    return small, torch.eye(24)[4:]


def test_a_narrower_student_needs_its_bridge(bert, batch):
    small, bridge = narrow(bert)
    with pytest.raises(StudyError, match="wanted a student of the teacher's 24 hidden dims, got"):
        Teaching(bert, small, Distil())
    small.bridge = bridge
    teaching = Teaching(bert, small, Distil())
    assert teaching.left == [0, 2]
    loss, _ = teaching(batch, *states(small, batch), teaching.left)
    loss.backward()
    assert teaching.bridge.grad.shape == (20, 24)
    assert Teaching(bert, deepcopy(small), Distil()).bridge.shape == (20, 24)


def test_a_bridge_leads_to_its_own_teacher(bert):
    small, _ = narrow(bert)
    small.bridge = torch.eye(20, 48)
    with pytest.raises(StudyError, match=r"20 hidden dims to the teacher's 24, got \(20, 48\)"):
        Teaching(bert, small, Distil())


def test_a_narrower_student_learns_answers_without_a_bridge(bert, batch):
    small, _ = narrow(bert)
    teaching = Teaching(bert, small, Distil(1.0, 0.0))
    loss, parts = teaching(batch, small(**batch).logits, None, teaching.left)
    assert loss.item() == parts["prediction"] > 0
    loss.backward()
    assert teaching.bridge.grad is None


def test_a_student_without_layers_learns_answers(bert, batch):
    masks = replace(Masks.dense(bert), mha=torch.zeros(3), ffn=torch.zeros(3))
    student = compact(bert, masks)
    teaching = Teaching(bert, student, Distil())
    loss, parts = teaching(batch, *states(student, batch), teaching.left)
    assert parts["layers"] == 0
    assert loss.item() > 0


def test_other_teachers_are_refused(bert, make_classifier):
    other = make_classifier("bert")
    other.config.id2label = {0: "LABEL_1", 1: "LABEL_0", 2: "LABEL_2"}
    with pytest.raises(StudyError, match="labels LABEL_0, LABEL_1, LABEL_2 in this order"):
        Teaching(other, bert, Distil())
    with pytest.raises(StudyError, match="wanted a teacher of the labels"):
        Teaching(make_classifier("bert", 2), bert, Distil())
    with pytest.raises(StudyError, match="wanted a teacher of 3 layers, as the student has, got 2"):
        Teaching(make_classifier("roberta"), bert, Distil())


def test_another_width_is_refused(bert):
    small, _ = narrow(bert)
    with pytest.raises(StudyError, match="24 hidden dims"):
        Teaching(bert, small, Distil(prediction=1.0, layers=1.0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"matching": "orderd"}, "unknown matching 'orderd'; did you mean ordered"),
        ({"predictions": 1.0}, "unknown option of distil 'predictions'; did you mean prediction"),
        ({"prediction": 0.0, "layers": 0.0}, "not both 0"),
        ({"prediction": -1.0}, "of at least 0"),
    ],
)
def test_wrong_options_are_refused(options, says):
    with pytest.raises(StudyError, match=says):
        Distil.of(options)
