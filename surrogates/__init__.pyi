"""The public names of `surrogates` and where each comes from."""

from .model.analytic import AnalyticSurrogate as AnalyticSurrogate
from .model.neural_planning import load_planning_model as load_planning_model
from .model.planning import (
    HingeLoad as HingeLoad,
    OptionModel as OptionModel,
    PlanningModel as PlanningModel,
    Polyhedron as Polyhedron,
    affine_load as affine_load,
)
from .model.prediction import NeuralSurrogate as NeuralSurrogate, load_surrogate as load_surrogate
