"""The main job, step by step: `run_pipeline`."""

from placement.pipeline.job import run_pipeline

__all__ = ["run_pipeline"]
