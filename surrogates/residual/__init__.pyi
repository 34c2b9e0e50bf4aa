"""The public names of `surrogates.residual` and where each comes from."""

from .around import random_calibration as random_calibration
from .model import (
    CorrectedLoads as CorrectedLoads,
    CorrectedModel as CorrectedModel,
    CorrectedState as CorrectedState,
    corrected as corrected,
    corrected_largest_load as corrected_largest_load,
    corrected_model as corrected_model,
)
from .weights import Residual as Residual, read_residual as read_residual
