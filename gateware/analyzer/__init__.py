"""The workload analyzer: what each tenant does, in double-buffered windows."""
