"""Records, tables and figures of a run."""

from diffreward.report.page import Gallery, Picture, write_report
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
from diffreward.report.tables import Markup, interval, markdown

__all__ = [
    "Gallery",
    "Markup",
    "Picture",
    "StaleRunError",
    "close_stage",
    "digest",
    "environment",
    "interval",
    "markdown",
    "open_stage",
    "read_json",
    "stage_digest",
    "write_json",
    "write_report",
]
