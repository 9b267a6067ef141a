"""What the command-line tools share: reading configs, building runners, reporting metrics."""
