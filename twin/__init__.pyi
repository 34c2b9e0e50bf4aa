"""The public names of `twin` and where each comes from; `twin/__init__.py` loads them when they are first used."""

from .confidence.comparison import compare as compare
from .confidence.decide import decide_label as decide_label, decide_limit as decide_limit, estimate as estimate
from .confidence.seeds import runner as runner
from .errors import (
    InfeasibleError as InfeasibleError,
    InputError as InputError,
    NoSolutionError as NoSolutionError,
    PlacementError as PlacementError,
)
from .figures.health import Published as Published, Stable as Stable, judge as judge
from .figures.prediction import Prediction as Prediction
from .figures.result import SimulationResult as SimulationResult
from .fleet.node import Failure as Failure, Server as Server
from .fleet.simulate import Fleet as Fleet, simulate_fleet as simulate_fleet
from .server.calibration import Calibration as Calibration, load_calibration as load_calibration
from .server.column import Column as Column
from .server.hardware import GpuType as GpuType, ModelSpec as ModelSpec
from .server.settings import EngineSetting as EngineSetting
from .simulation import simulate as simulate, simulate_many as simulate_many
from .sources.access_log import read_access_log as read_access_log, read_recording as read_recording
from .sources.adapter_file import read_adapters as read_adapters
from .traffic.length_shapes import empirical_lengths as empirical_lengths
from .workload.adapter import Adapter as Adapter, Lengths as Lengths, Slo as Slo
from .workload.recording import Recording as Recording
from .workload.requests import Requests as Requests
from .workload.workload import Workload as Workload
