"""Distances, clusters and greedy covers of embeddings: pure functions, in blocks, never N×N.

Every function takes features N×D and speaks of rows by their position in them. Sample ids come in only where a draw or
a tie needs them (`ids`; the positions where none are given), so that a result does not depend on the order of the rows.
"""
