"""What the report of a training consists of: its files, its evaluation, and the sections of the page."""
