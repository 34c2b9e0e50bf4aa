"""The public names of `placement.solvers`; a solver's library is loaded when that solver is asked for."""

from .bounds import certified_minimum as certified_minimum, prove_bound as prove_bound
from .capabilities import refuse as refuse
from .cpsat import CpSat as CpSat
from .explain import infeasible_error as infeasible_error
from .greedy import Greedy as Greedy
from .greedy_published import GreedyPublished as GreedyPublished
from .milp import MilpSolver as MilpSolver
