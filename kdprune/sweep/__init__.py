"""Sweeps: from a study file to runs, what they share made once, on as many processes as are asked for."""
