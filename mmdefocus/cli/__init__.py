"""Support of the command-line tools: options, config files, runners, reports. Import its modules one by one."""
