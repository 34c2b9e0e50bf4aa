"""The public names of `placement.export` and where each comes from."""

from .files import (
    DeploymentFiles as DeploymentFiles,
    Exporter as Exporter,
    VllmExport as VllmExport,
    nothing as nothing,
)
