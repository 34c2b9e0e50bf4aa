"""Data and training: `dataset` simulates rays of mixes, `train` fits the networks, `assemble` writes the artifact.

The only place with torch and Lightning (`networks`, `train`); needs the extra `train`.
"""
