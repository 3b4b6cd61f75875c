"""`keepwarm keys`: makes, lists and revokes API keys in a file or in a Secret's manifest."""
