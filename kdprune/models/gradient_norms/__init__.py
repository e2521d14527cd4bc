"""Exact per-example gradient norms: over all parameters, or of the last layer alone."""

from kdprune.models.gradient_norms.last_layer import last_layer_gradient_norm
from kdprune.models.gradient_norms.norms import GradientNorms

__all__ = ["GradientNorms", "last_layer_gradient_norm"]
