"""kdprune trains small models on a fraction of the data, with a teacher."""

__version__ = "0.1.0"
