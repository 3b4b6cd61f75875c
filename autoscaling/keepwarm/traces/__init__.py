"""Request traces: read from what records them, described, and made up where none is at hand.

`sources.read` takes any of the file formats; `prometheus.fetch` asks a server; `generate` composes
one of six presets; `histogram` and `latency` carry measured start-up and service times.
"""
