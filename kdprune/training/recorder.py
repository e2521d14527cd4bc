"""Observers that record the dynamics of a training: statistics of every sample in every epoch.

Shapes: N samples of a batch, C classes, S statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from kdprune.data.reader import Batch
from kdprune.messages import counted, listed
from kdprune.records.dynamics import DynamicsFiles
from kdprune.records.predictions import Predictions
from kdprune.records.statistics import STATISTICS, statistics
from kdprune.training.observers import Observer
from kdprune.training.step import StepResult

FLUSH = 50  # batches that wait on the device before they are written: a copy makes the host wait for it
KEPT = 3  # checkpoints that a stopped training might go back to, the newest of which may not have been written


class Recorder(Observer):
    """What recording from the training views and from plain images share: files, and what they are written from.

    Args:
        files: the record, created by the main process here.
        labels_N: of all samples of the unpruned training set.
        num_classes: C.
        ids: of the samples that are observed, int64, ascending.
        accelerator: of the run.
    """

    def __init__(
        self, files: DynamicsFiles, labels_N: np.ndarray, num_classes: int, ids: np.ndarray, accelerator: Accelerator
    ) -> None:
        self.files, self.ids, self.accelerator = files, ids, accelerator
        self.predictions = Predictions(files.folder, files.about.total, num_classes)
        if accelerator.is_main_process:
            files.create(labels_N)
        accelerator.wait_for_everyone()
        self._waiting: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._epochs_done = 0
        self._saved_at: list[int] = []  # epochs that were done when the last checkpoints were written
        self._first = True
        self._sealed: dict[int, dict[str, Any]] = {}

    def step(self, step: int) -> None:
        if self._first and step > 1:
            raise ValueError(
                "--train.record: given for a run that was begun without it, so that its first epochs would be missing; "
                "remove the run's checkpoints, or go on without it"
            )
        self._first = False
        if len(self._waiting) >= FLUSH:
            self._write()

    def epoch(self, ended: range, last: bool) -> dict[str, Any]:
        self._epochs_done += 1  # where a batch holds several epochs, their ends are one
        return {}

    def state_dict(self) -> dict[str, Any]:
        self._write()
        self.files.flush()
        self.accelerator.wait_for_everyone()  # no checkpoint may be ahead of what another process has yet to write
        self._saved_at = [*self._saved_at, self._epochs_recorded][-KEPT:]
        self._forget()
        return {"saved_at": self._saved_at, "epochs_done": self._epochs_done, "seals": self._seals()}

    def _seals(self) -> dict[str, Any]:
        """Of what a checkpoint relies on. An epoch of which all is written is read once."""
        if not self.accelerator.is_main_process:
            return {}
        epochs = range(1, min(self.files.about.epochs, self._epochs_recorded + 2) + 1)
        dynamics = {epoch: self._sealed.get(epoch) or self.files.seal(epoch) for epoch in epochs}
        self._sealed = {epoch: sealed for epoch, sealed in dynamics.items() if epoch <= self._epochs_recorded}
        return {
            "dynamics": dynamics,
            "predictions": self.predictions.seals(since=self._epochs_recorded),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved_at, self._first = list(state["saved_at"]), False
        self._epochs_done = state["epochs_done"]
        seals = state.get("seals", {}) if self.accelerator.is_main_process else {}
        for epoch, sealed in seals.get("dynamics", {}).items():
            self.files.check(epoch, sealed)
        for epoch, sealed in seals.get("predictions", {}).items():
            self.predictions.check(epoch, sealed)

    def _forget(self) -> None:
        """Let go of predictions that neither the next epoch nor a checkpoint will be compared with: what comes after a
        checkpoint's epoch, and was not begun when it was written, is predicted again."""
        if self.accelerator.is_main_process:
            resumed = {epoch + more for epoch in self._saved_at for more in (0, 1)}
            self.predictions.forget(resumed, since=self._epochs_recorded)

    def close(self) -> None:
        """Write what is left, and see that nothing is missing.

        Raises:
            ValueError: a sample without statistics in some epoch.
        """
        self._write()
        self.files.flush()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process and (missing := self.files.unobserved(self.ids)):
            epoch, ids = missing
            raise ValueError(
                f"{self.files.folder}: no statistics of {counted(len(ids), 'sample')} in epoch {epoch} "
                f"({listed(ids)}): remove the run, it is then trained from the start"
            )
        self.accelerator.wait_for_everyone()

    def _note(self, ids_N: Tensor, epochs_N: Tensor, logits_NC: Tensor, labels_N: Tensor) -> None:
        """Keep a batch's statistics on the device until they are written. `epochs_N` counts from 1, on the host."""
        logits_NC = logits_NC.detach().float()
        self._waiting.append((ids_N, epochs_N, statistics(logits_NC, labels_N), logits_NC.log_softmax(1).half()))

    def _write(self) -> None:
        """Write what waits, but for epochs of which the one before, to compare with, is not yet written by all."""
        if not self._waiting:
            return
        ids, epochs, statistics_SN, log_p_NC = (
            torch.cat(parts, dim=1 if i == 2 else 0).cpu()
            for i, parts in enumerate(zip(*self._waiting, strict=True))
        )  # fmt: skip
        too_early = epochs > self._last_to_write
        self._waiting.clear()
        if too_early.any():
            self._waiting.append((ids[too_early], epochs[too_early], statistics_SN[:, too_early], log_p_NC[too_early]))
        for epoch in epochs[~too_early].unique().tolist():
            if epoch > self.files.about.epochs:
                continue  # begun and never ended
            of_epoch = epochs == epoch
            ids_P, values_SP = ids[of_epoch].numpy(), statistics_SN[:, of_epoch]
            values_SP[STATISTICS.index("kl")] = self.predictions.exchange(epoch, ids_P, log_p_NC[of_epoch].float())
            self.files.write(epoch, ids_P, values_SP.numpy())

    @property
    def _epochs_recorded(self) -> int:
        """Epochs of which all is written."""
        return self._epochs_done

    @property
    def _last_to_write(self) -> int:
        """The last epoch whose samples can be compared with the epoch before."""
        return self.files.about.epochs + 1


class TrainingViews(Recorder):
    """Records each sample as it is trained on: in training mode, augmented, before the step that it is part of.

    In two epochs a sample may come to two processes, so the next epoch's are written once all processes have written
    this one's.

    Args:
        epoch_steps: steps of an epoch, which need not be whole.
    """

    def __init__(self, *args: Any, epoch_steps: float) -> None:
        super().__init__(*args)
        self._epoch_steps = epoch_steps
        self._complete = 0  # epochs of which every process has written all

    def batch(self, batch: Batch, result: StepResult) -> None:
        self._note(batch.ids, batch.views + 1, result.output, batch.labels)

    def step(self, step: int) -> None:
        super().step(step)
        while step >= self._epoch_steps * (self._complete + 1):
            self._write()
            self.accelerator.wait_for_everyone()
            self._complete += 1
            self._forget()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "complete": self._complete}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._complete = state["complete"]

    @property
    def _epochs_recorded(self) -> int:
        return self._complete

    @property
    def _last_to_write(self) -> int:
        return self._complete + 1


class PlainImages(Recorder):
    """Records every sample after each epoch, without augmentation, in evaluation mode.

    Args:
        predict: gives this process's part of the samples and their logits, the model in evaluation mode.
    """

    def __init__(self, *args: Any, predict: Callable[[], Iterable[tuple[Batch, Tensor]]]) -> None:
        super().__init__(*args)
        self.predict = predict

    @torch.no_grad()
    def epoch(self, ended: range, last: bool) -> dict[str, Any]:
        this = self._epochs_done + 1
        for batch, logits_NC in self.predict():
            self._note(batch.ids, torch.full_like(batch.ids, this), logits_NC, batch.labels)
            if len(self._waiting) >= FLUSH:
                self._write()
        self._write()
        row = super().epoch(ended, last)
        self.accelerator.wait_for_everyone()
        self._forget()
        return row
