"""tq for each tool that manages Macs: rendered scripts, packages and profiles, with the tool's own exit codes."""
