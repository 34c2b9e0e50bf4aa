from .build import add_request as add_request, new_engine as new_engine
from .engine import advance as advance
from .outcome import KernelOutput as KernelOutput, outcome as outcome
from .play import Played as Played, play as play, run_requests as run_requests
from .reference import ReferenceEngine as ReferenceEngine
from .state import EngineState as EngineState, Limits as Limits
