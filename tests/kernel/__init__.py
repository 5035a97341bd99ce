"""Tests of probekit.kernel."""
