"""Safety rules: plausibility screen, conditions over columns, hysteresis and dwell."""
