"""What the command-line tools consist of: configs, runners, reports, inference, complexity."""
