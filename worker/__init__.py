"""Runs the jobs: routing, engines, the pipeline, the wiring and the command line."""
