"""Results of either host -> tables for people."""

from lm_eval_inversion.report.reading import Results, Row, read_results
from lm_eval_inversion.report.tables import attacks_table, examples_table, metrics_table

__all__ = ["Results", "Row", "attacks_table", "examples_table", "metrics_table", "read_results"]
