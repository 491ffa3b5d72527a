"""Filters for responses to imitate: steps that keep, drop or leave open, and count each."""

from safeladder.ladder.filters.pipeline import (
    Filtered,
    FilterReport,
    StepReport,
    filter_file,
    filter_rows,
    load_steps,
)
from safeladder.ladder.filters.steps import FilterStep

__all__ = ["FilterReport", "FilterStep", "Filtered", "StepReport", "filter_file", "filter_rows",
           "load_steps"]
