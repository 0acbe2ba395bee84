"""Speed, measured: every module is runnable alone (``python -m benchmarks.NAME [--json]``) and compares in one run."""
