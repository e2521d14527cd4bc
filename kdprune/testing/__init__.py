"""Contract checks for plug-ins, for the tests of the packages that bring them."""

from kdprune.testing.losses import check_loss

__all__ = ["check_loss"]
