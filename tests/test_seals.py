"""What was recorded before a checkpoint is checked; what came after it is written again."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import StopIn, train
from hypothesis import given
from hypothesis import strategies as st

from kdprune.records.seals import is_unbroken, seal
from kdprune.training.interrupt import Interrupted

EPOCHS = {"train.steps": 12, "train.batch_size": 256, "student.model": "mlp_64"}  # 2.3 epochs


@given(st.integers(1, 40), st.integers(1, 4), st.data())
def test_a_seal_breaks_by_any_change_of_a_sample_that_was_there_and_by_no_other(total, width, data):
    there = np.array(data.draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    values = np.random.default_rng(total).normal(size=(total, width)).astype(np.float16)
    values[~there] = np.nan
    made = seal(values)
    assert is_unbroken(made, values)
    values[~there] = 7
    assert is_unbroken(made, values)
    place = data.draw(st.integers(0, total - 1)), data.draw(st.integers(0, width - 1))
    values.view(np.uint16)[place] ^= 1 << data.draw(st.integers(0, 15))
    assert is_unbroken(made, values) == (not there[place[0]])


@pytest.mark.parametrize("view", ["plain", "training"])
@pytest.mark.parametrize("name", ["epoch_0001.f16", ".predictions_*1.f16"])
@pytest.mark.parametrize("damage", ["a bit", "gone"])
def test_a_record_that_was_changed_before_its_training_goes_on_is_refused(tmp_path, view, name, damage):
    settings = {**EPOCHS, "train.record": view}
    with pytest.raises(Interrupted):
        train(tmp_path, settings, StopIn(8))
    (path,) = tmp_path.glob(f"*/dynamics/{name}")
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content) if damage == "a bit" else path.unlink()
    with pytest.raises(ValueError, match=rf"{path} .*not what was written.*checkpoints"):
        train(tmp_path, settings)
