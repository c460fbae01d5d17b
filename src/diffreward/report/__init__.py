"""Records, statistics, tables and figures of a run."""

from diffreward.report.records import (
    StaleRunError,
    close_stage,
    digest,
    environment,
    open_stage,
    read_json,
    stage_digest,
    write_json,
)
from diffreward.report.stats import Estimate, bootstrap, interquartile_mean
from diffreward.report.tables import markdown

__all__ = [
    "Estimate",
    "StaleRunError",
    "bootstrap",
    "close_stage",
    "digest",
    "environment",
    "interquartile_mean",
    "markdown",
    "open_stage",
    "read_json",
    "stage_digest",
    "write_json",
]
