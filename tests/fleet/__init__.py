"""Rollouts on real sshd servers."""
