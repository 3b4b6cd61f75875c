"""What stands between a request that may pass and the predictor: holding, queueing, retrying."""
