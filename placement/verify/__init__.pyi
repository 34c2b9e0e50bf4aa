"""The public names of `placement.verify` and where each comes from."""

from .claim import Claim as Claim
from .verdict import ColumnVerdict as ColumnVerdict, Decision as Decision, Peak as Peak, Verification as Verification
from .verifier import TwinVerifier as TwinVerifier, Verifier as Verifier, no_verification as no_verification
