"""Outputs that were handed out in earlier events and live in a buffer that is used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.proofs.generic import EnginesParted, OutputChanged, run
from harness.parity.proofs.handed_out import HandedOut
from harness.parity.trees import named


def fresh(event: int) -> Any:
    return {"latent": torch.full((2,), float(event))}


def reuses(every: int) -> Callable[[int], Any]:
    """An engine with so many output buffers."""
    buffers = [torch.zeros(2) for _ in range(every)]
    return lambda event: {"latent": buffers[event % every].fill_(event)}


def changed(plain: Any, fast: Any, **options: Any) -> OutputChanged:
    with pytest.raises(OutputChanged) as caught:
        run(plain, fast, range(6), **options)
    return caught.value


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_buffer_that_is_used_again_is_named_with_both_events(every: int) -> None:
    error = changed(fresh, reuses(every))
    assert (error.side, error.made, error.event, error.turn, error.path) == ("fast", 0, every, "fast", "latent")
    assert f"fast handed out latent at event 0, and fast changed it at event {every}, {every}:" in str(error)
    assert isinstance(error, EnginesParted) and error.differences[0].count == 2


def test_a_buffer_of_the_plain_side_is_named_too_and_one_of_both() -> None:
    assert changed(reuses(2), fresh).side == "plain"
    both = changed(reuses(2), reuses(2))
    assert (both.side, both.made, both.event) == ("plain", 0, 2)


def test_a_buffer_that_both_sides_share_is_named() -> None:
    buffer = torch.zeros(2)
    error = changed(lambda event: buffer.fill_(event), lambda event: buffer.fill_(event))
    assert (error.side, error.made, error.event, error.turn) == ("plain", 0, 1, "plain")


def test_an_output_that_changes_in_the_turn_of_the_other_side_is_named() -> None:
    kept: list[Tensor] = []

    def plain(event: int) -> Tensor:
        kept.append(torch.full((2,), float(event)))
        return kept[-1]

    def fast(event: int) -> Tensor:
        if event == 3:
            kept[1].add_(1)
        return torch.full((2,), float(event))

    error = changed(plain, fast)
    assert (error.side, error.made, error.event, error.turn) == ("plain", 1, 3, "fast")


@pytest.mark.parametrize("remember", [1, 2, 4])
def test_only_the_outputs_of_the_last_events_are_remembered(remember: int) -> None:
    assert changed(fresh, reuses(remember), remember=remember + 1).event == remember
    assert run(fresh, reuses(remember), range(6), remember=remember).events == 6


def test_nothing_is_remembered_where_that_is_asked_for() -> None:
    agreed = run(fresh, reuses(1), range(6), remember=0)
    assert (agreed.events, agreed.again) == (6, 0)
    with pytest.raises(InvalidInput, match="remember: got -1"):
        run(fresh, reuses(1), [1], remember=-1)


def test_every_earlier_output_of_both_sides_is_compared_after_every_turn() -> None:
    assert run(fresh, lambda event: fresh(event), range(3)).again == 0 + 1 + 2 + 3 + 4 + 5


def test_a_difference_of_the_event_itself_is_named_first() -> None:
    buffer = torch.zeros(2)
    with pytest.raises(EnginesParted) as caught:
        run(fresh, lambda event: {"latent": buffer.fill_(event if event < 2 else 9)}, range(1, 5))
    assert type(caught.value) is EnginesParted and caught.value.event == 1


def test_an_output_without_axes_is_compared_again_too() -> None:
    buffer = torch.zeros(())
    error = changed(lambda event: {"n": torch.tensor(float(event))}, lambda event: {"n": buffer.fill_(event)})
    assert (error.path, error.made, error.event) == ("n", 0, 1)


def test_of_several_outputs_that_changed_the_oldest_is_named() -> None:
    buffers = [torch.zeros(2) for _ in range(3)]

    def fast(event: int) -> Any:
        if event == 3:
            buffers[0].add_(1), buffers[1].add_(1)
        return {"latent": buffers[event].fill_(event) if event < 3 else torch.full((2,), float(event))}

    error = changed(fresh, fast)
    assert (error.made, error.event) == (0, 3)


def test_an_output_that_is_resized_has_changed() -> None:
    kept: list[Tensor] = []

    def fast(event: int) -> Any:
        kept.append(torch.full((2,), float(event)))
        if event == 2:
            kept[0].resize_(1)
        return {"latent": kept[-1]}

    assert "shape differs, now (1,), handed out (2,)" in str(changed(fresh, fast))


def test_an_array_in_a_reused_buffer_is_found_and_numbers_and_read_only_arrays_are_not_asked_again() -> None:
    buffer, fixed = np.zeros(3, dtype=np.float32), np.ones(2)
    number = np.zeros(())
    fixed.flags.writeable = False
    outputs = HandedOut()
    outputs.event()
    tree = {"x": buffer, "n": 3, "fixed": fixed, "turned": np.arange(3)[::-1], "number": number}
    outputs.keep("fast", 0, tree, named(tree))
    assert outputs.changed("plain") is None and outputs.compared == 4
    buffer[1] = 5.0
    changed = outputs.changed("fast")
    assert changed is not None and (changed.output.path, changed.difference.index) == ("x", (1,))
    buffer[1], number[()] = 0.0, 1.0
    changed = outputs.changed("fast")
    assert changed is not None and changed.output.path == "number"
