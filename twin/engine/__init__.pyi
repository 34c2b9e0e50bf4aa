from .build import add_request as add_request, new_engine as new_engine
from .engine import advance as advance
from .outcome import KernelOutput as KernelOutput
from .play import Played as Played, run_requests as run_requests
from .reference import ReferenceEngine as ReferenceEngine
from .state import EngineState as EngineState, Limits as Limits
