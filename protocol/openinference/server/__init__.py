"""The process around the edges: settings from flags and environment, logs, two ports, drain."""
