"""How much a caller may use: requests, streams and tokens, reserved before work, then trued up."""
