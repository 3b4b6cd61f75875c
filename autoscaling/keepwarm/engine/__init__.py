"""What a measured engine should be told: `keepwarm engine`."""
