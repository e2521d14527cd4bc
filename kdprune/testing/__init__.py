"""Contract checks for plug-ins, to be run on one's own: each raises `AssertionError` with what is broken."""

from kdprune.testing.losses import check_loss
from kdprune.testing.pruners import check_pruner
from kdprune.testing.scorers import check_scorer
from kdprune.testing.selectors import check_selector

__all__ = ["check_loss", "check_pruner", "check_scorer", "check_selector"]
