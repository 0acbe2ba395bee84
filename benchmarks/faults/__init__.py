"""Faults on purpose: a proxy that mistreats connections, and campaigns that use it."""
