"""kdprune trains small models on a fraction of the data, with a teacher."""

from kdprune._timm import register_with_timm

__version__ = "0.1.0"

register_with_timm()
