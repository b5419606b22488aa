"""Logs, metrics and traces of the service and its workers."""
