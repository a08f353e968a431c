"""Provisioning Macs."""
