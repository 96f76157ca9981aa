"""lm-evaluation-harness as host. Importing this package loads nothing: it runs at every interpreter start (see discovery)."""
