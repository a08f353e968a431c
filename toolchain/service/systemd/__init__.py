"""systemd as the service manager: units of a user or of the system, driven with systemctl."""
