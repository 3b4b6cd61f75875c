"""The keepwarm command and what works beside the two servers."""
