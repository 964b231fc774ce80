"""The digest of a device's kernels, on a CPU and with small inputs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from harness.parity.baselines import kernels_digest
from harness.parity.baselines.kernels_digest import digest

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kernels_digest, "PRODUCTS", ((1, 8, 8), (3, 8, 16)))
    monkeypatch.setattr(kernels_digest, "ATTENTIONS", ((2, 2, 6, 9, 8),))
    monkeypatch.setattr(kernels_digest, "REDUCED", ((2, 7, 4),))
    digest.cache_clear()
    yield
    digest.cache_clear()


def test_it_has_products_attentions_and_reductions_in_two_dtypes() -> None:
    names = [(name, made.dtype) for name, made in kernels_digest.results(CPU)]
    kinds = {name.split()[0] for name, _dtype in names}
    assert kinds == {"product", "attention", "sum", "norm", "wide", "mean"}
    assert len(names) == 2 * (2 + 2 + 4)
    assert {dtype for _name, dtype in names} == {torch.float32, torch.bfloat16, torch.float64}


def test_it_is_the_same_at_every_call_and_moves_no_generator() -> None:
    state = torch.random.get_rng_state()
    first = digest(CPU)
    digest.cache_clear()
    torch.manual_seed(5)
    assert digest(CPU) == first and len(first) == 16
    torch.random.set_rng_state(state)
    digest.cache_clear()
    digest(CPU)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("place", range(16))
def test_one_bit_of_any_result_changes_it(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, results = digest(CPU), kernels_digest.results

    def flipped(device: torch.device) -> Iterator[tuple[str, Tensor]]:
        for number, (name, made) in enumerate(results(device)):
            changed = made.clone(memory_format=torch.contiguous_format)
            if number == place:
                changed.view(torch.uint8).view(-1)[-1] ^= 1
            yield name, changed

    monkeypatch.setattr(kernels_digest, "results", flipped)
    digest.cache_clear()
    assert digest(CPU) != plain


def test_a_result_of_another_name_or_form_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, results = digest(CPU), list(kernels_digest.results(CPU))
    for changed in ((lambda name, made: (name + "!", made)), (lambda name, made: (name, made[None]))):
        monkeypatch.setattr(
            kernels_digest, "results", lambda device, changed=changed: (changed(*each) for each in results)
        )
        digest.cache_clear()
        assert digest(CPU) != plain
