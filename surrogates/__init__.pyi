"""The public names of `surrogates` and where each comes from."""

from .model.analytic import AnalyticSurrogate as AnalyticSurrogate
from .model.planning import (
    HingeLoad as HingeLoad,
    OptionModel as OptionModel,
    PlanningModel as PlanningModel,
    Polyhedron as Polyhedron,
    affine_load as affine_load,
)
from .pieces.model import (
    PiecesModel as PiecesModel,
    load_planning_model as load_planning_model,
    physics_planning as physics_planning,
)
from .residual.model import CorrectedModel as CorrectedModel
from .residual.weights import read_residual as read_residual
from .steady_state.model import (
    SteadyStateModel as SteadyStateModel,
    largest_load as largest_load,
    steady_state as steady_state,
    steady_state_model as steady_state_model,
)
from .steady_state.state import SteadyState as SteadyState
