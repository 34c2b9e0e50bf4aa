"""Deployment files of a plan: `vllm` start scripts, `kubernetes` manifests, `litellm` and `blis` configurations.

    exporter = DeploymentFiles(model, formats={"vllm": {}, "litellm": {}}).for_run(workload, settings, calibrations)
    exporter.write(document, directory)

`files` is the exporter itself, `names` refuses what cannot be served before anything is solved, `servers` says which
`vllm serve` processes a plan needs, and each format is a file of its own.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
