"""What a real browser makes of it: `make browser`, which needs a Chromium on PATH."""
