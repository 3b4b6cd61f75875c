"""The keepwarm command: what runs beside the two servers."""
