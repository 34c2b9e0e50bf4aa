from .model import (
    ColumnSums as ColumnSums,
    SteadyStateModel as SteadyStateModel,
    largest_load as largest_load,
    steady_state as steady_state,
    steady_state_model as steady_state_model,
)
from .numbers import STATE_NUMBERS as STATE_NUMBERS, state_numbers as state_numbers
from .solve import LIMITS as LIMITS
from .state import SteadyState as SteadyState
