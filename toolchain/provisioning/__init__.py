"""The provisioner `tq` for Macs without Python, and the adapters that run it: rendered from templates/."""
