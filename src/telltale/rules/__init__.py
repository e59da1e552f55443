"""The safety lane: hard limits and alarm levels, judged on de-duplicated columns in the ingest transaction.

A healthy row costs a fraction of a microsecond: conditions are numpy over the batch, and only a vehicle that
has one, or had one, is looked at row by row.
"""

from telltale.rules.batch import Newest, PreviousRows
from telltale.rules.limits import DEFAULT, CellLimits, Limits
from telltale.rules.state import VehicleState
from telltale.rules.table import RULES, Rule
from telltale.rules.verdict import RULES_VERSION, SafetyAlert, Verdict, judge

__all__ = [
    "DEFAULT",
    "RULES",
    "RULES_VERSION",
    "CellLimits",
    "Limits",
    "Newest",
    "PreviousRows",
    "Rule",
    "SafetyAlert",
    "VehicleState",
    "Verdict",
    "judge",
]
