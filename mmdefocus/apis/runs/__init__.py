"""Runs of training and testing: config files, their options and checks, runners. Import its modules one by one."""
