"""The transformer: a KServe-compatible process that stands in front of the predictor."""
