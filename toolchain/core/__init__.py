"""What every package builds on: settings, console, errors, processes, records. It imports no other package of ours."""
