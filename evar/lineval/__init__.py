"""The runner that evaluates frozen encoders with probes."""
