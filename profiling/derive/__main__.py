"""`python -m profiling.derive`: a request as JSON on standard input, a calibration as YAML on standard output.

For `twin.server.derivation`; people use `python -m profiling derive`. What the user did wrong is answered with exit
code 2 and `{"problem", "where", "remedy", "fits"}` as JSON; `fits` is false where the model is too large for the GPU.
"""

from __future__ import annotations

import json
import sys

import yaml

from profiling.derive.request import derived
from twin.errors import DoesNotFitError, InputError


def main() -> int:
    """Answers one request; returns the exit code."""
    try:
        calibration = derived(json.load(sys.stdin))
    except InputError as error:
        told = {"problem": error.problem, "where": error.where, "remedy": error.remedy}
        print(json.dumps({**told, "fits": not isinstance(error, DoesNotFitError)}))
        return InputError.exit_code
    print(yaml.safe_dump(calibration.to_dict(), sort_keys=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
