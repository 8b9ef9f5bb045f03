"""OpenTelemetry exporters: naming rules, wire formats and the measurement store.

Nothing here knows Pyramid or imports ``c2c_otel``; what it needs is passed in.
"""
