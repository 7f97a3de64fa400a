"""Does the price rise while the target is missed, and does the target rise as told?"""

import pytest
import torch

from lib.training.lagrangian import WOUND, Course, Price


def test_the_target_by_hand():
    cubic, linear = Course(0.1, 0.9, 40), Course(0.1, 0.9, 40, "linear")
    assert [cubic.target(s) for s in (0, 40, 99)] == pytest.approx([0.1, 0.9, 0.9])
    assert cubic.target(20) == pytest.approx(0.1 + 0.8 * (1 - 0.5**3))
    assert linear.target(10) == pytest.approx(0.3)
    assert Course(0.1, 0.9, 0).target(0) == 0.9


def test_the_price_by_hand():
    price = Price(lr=0.1)
    with torch.no_grad():
        price.l1.fill_(-2.0)
        price.l2.fill_(3.0)
    assert price(torch.tensor(0.3), 0.5).item() == pytest.approx(-2 * -0.2 + 3 * 0.04)


@pytest.mark.parametrize(("sparsity", "sign"), [(0.3, -1), (0.7, 1)])
def test_the_price_of_missing_the_target_rises(sparsity, sign):
    """Ascent: l1 takes the sign of the gap, l2 grows either way; both pull s towards t."""
    price, s = Price(lr=0.1, unwind=False), torch.tensor(sparsity, requires_grad=True)
    for _ in range(20):
        price(s, 0.5).backward()
        price.step(sparsity, 0.5)
    assert price.l1.item() * sign > 1
    assert price.l2.item() > 1
    s.grad = None
    price(s, 0.5).backward()
    assert float(s.grad) * sign > 0  # descent moves s against it


def test_old_debts_are_forgotten_once_the_target_is_met():
    for unwind, left in ((True, WOUND), (False, -20.0)):
        price = Price(lr=1e-6, unwind=unwind)
        with torch.no_grad():
            price.l1.fill_(-20.0)
        for sparsity in (0.3, 0.6):
            price(torch.tensor(sparsity), 0.5).backward()
            price.step(sparsity, 0.5)
            if sparsity < 0.5:
                assert price.l1.item() == pytest.approx(-20)
        assert price.l1.item() == pytest.approx(left, abs=1e-3)
